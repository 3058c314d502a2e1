use std::time::Duration;

use face_core::liveness::{ChallengeRule, Demand, Method};

use super::*;

const CAMERA: &str = "[[camera]]\nid = \"front\"\nsource = \"test\"\n";
const DOOR: &str = "[[door]]\nid = \"main\"\ncamera = \"front\"\n";

struct Folder(tempfile::TempDir);

impl Folder {
    fn with(text: &str) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.write("config.toml", text);
        folder
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn load(&self) -> Result<Loaded, ConfigErrors> {
        self.load_with(&[])
    }

    fn load_with(&self, environment: &[(&str, &str)]) -> Result<Loaded, ConfigErrors> {
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        load(Some(&self.0.path().join("config.toml")), environment)
    }
}

fn refused(text: &str) -> String {
    Folder::with(text).load().unwrap_err().to_string()
}

#[test]
fn the_defaults_alone_are_a_configuration() {
    let loaded = load(None, []).unwrap();
    assert_eq!(loaded.config.policy("default").unwrap().freshness, Duration::from_millis(800));
    assert!(loaded.config.cameras.is_empty() && loaded.config.doors.is_empty());
}

#[test]
fn a_file_names_only_what_differs() {
    let folder = Folder::with(&format!("schema_version = 1\n{CAMERA}{DOOR}hold = \"5s\"\n"));
    let config = folder.load().unwrap().config;
    assert_eq!(config.doors[0].hold, Duration::from_secs(5));
    assert_eq!(config.doors[0].regrant, Duration::from_secs(1));
    assert_eq!((config.cameras[0].width, config.cameras[0].fps), (640, 15));
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_key_that_was_meant() {
    let text = refused(&format!("schema_version = 1\n{CAMERA}{DOOR}hodl = \"3s\"\n"));
    assert!(text.contains("config.toml:8"), "{text}");
    assert!(text.contains("door[main].hodl") && text.contains("did you mean hold?"), "{text}");
    let text = refused("schema_version = 1\n[agnet]\nstate_dir = \"/x\"\n");
    assert!(text.contains("config.toml:2") && text.contains("did you mean agent?"), "{text}");
    let text = refused(&format!("schema_version = 1\n{CAMERA}colour = 1\n"));
    assert!(text.contains("camera[front].colour") && text.contains("valid here: "), "{text}");
}

#[test]
fn every_unknown_key_is_told_at_once() {
    let text = refused("schema_version = 1\n[log]\nlevl = \"info\"\n[models]\nwieghts = \"/x\"\n");
    assert_eq!(text.lines().count(), 2, "{text}");
}

#[test]
fn a_bad_value_is_named_with_its_line() {
    let text = refused(&format!("schema_version = 1\n{CAMERA}{DOOR}hold = \"3 parsecs\"\n"));
    assert!(text.contains("config.toml:8") && text.contains("door[main].hold"), "{text}");
    assert!(text.contains("not a duration") && text.contains("\"3s\""), "{text}");
    for (line, expected) in [
        ("[[policy]]\nid = \"a\"\nfar = \"often\"\n", "policy[a].far"),
        ("[[policy]]\nid = \"a\"\nmargin = 1.5\n", "policy[a].margin"),
        ("[[policy]]\nid = \"a\"\nliveness = \"maybe\"\n", "policy[a].liveness"),
        ("[[policy]]\nid = \"a\"\nliveness_requires = [\"luck\"]\n", "\"luck\" cannot be required; valid here: blink"),
        ("[log]\nlevel = \"chatty\"\n", "log.level"),
        ("[camera]\nid = \"front\"\n", "[[camera]]"),
        ("log = 3\n", "[log]"),
    ] {
        let text = refused(&format!("schema_version = 1\n{line}"));
        assert!(text.contains(expected), "{line}: {text}");
    }
}

#[test]
fn liveness_levels_are_known_by_name_and_the_old_name_still_works() {
    let demand = |policy: &str| {
        let text = format!("schema_version = 1\n[[policy]]\nid = \"a\"\n{policy}");
        Folder::with(&text).load().unwrap().config.policy("a").unwrap().demand()
    };
    assert_eq!(demand(""), Some(Demand::standard()));
    assert_eq!(demand("liveness = \"required\"\n"), Some(Demand::standard()));
    assert_eq!(demand("liveness = \"basic\"\n"), Some(Demand::basic()));
    let strict = demand("liveness = \"strict\"\n").unwrap();
    assert_eq!(strict.without(Method::Challenge), Demand::strict());
    assert!(strict.required.has(Method::Challenge), "a strict door asks for a challenge");
    assert_eq!(demand("liveness = \"off\"\n"), None);
    let depth = demand("liveness_requires = [\"depth\"]\n").unwrap();
    assert!(depth.required.has(Method::Depth) && depth.required.has(Method::Passive));
    let text =
        refused("schema_version = 1\n[[policy]]\nid = \"a\"\nliveness = \"off\"\nliveness_requires = [\"depth\"]\n");
    assert!(text.contains("policy a: liveness is off"), "{text}");
}

#[test]
fn a_challenge_is_asked_for_by_level_by_name_or_where_the_model_is_uncertain() {
    let rule = |policy: &str| {
        let text = format!("schema_version = 1\n[[policy]]\nid = \"a\"\n{policy}");
        Folder::with(&text).load().unwrap().config.policy("a").unwrap().challenge()
    };
    assert_eq!(rule(""), ChallengeRule::Never);
    assert_eq!(rule("liveness = \"off\"\n"), ChallengeRule::Never);
    assert_eq!(rule("liveness = \"strict\"\n"), ChallengeRule::Always);
    assert_eq!(rule("liveness_requires = [\"challenge\"]\n"), ChallengeRule::Always);
    assert_eq!(rule("challenge_uncertain = true\n"), ChallengeRule::WhenUncertain { from: 0.25 });
    assert_eq!(rule("challenge_uncertain = true\nliveness = \"strict\"\n"), ChallengeRule::Always);
    let text = refused("schema_version = 1\n[[policy]]\nid = \"a\"\nliveness = \"off\"\nchallenge_uncertain = true\n");
    assert!(text.contains("policy a: liveness is off, and challenge_uncertain"), "{text}");
}

#[test]
fn text_that_is_not_toml_names_the_line() {
    let text = refused("schema_version = 1\n[log\n");
    assert!(text.contains("config.toml:2") && text.contains("not valid TOML"), "{text}");
}

#[test]
fn another_schema_version_is_refused_and_a_file_must_name_its_own() {
    let text = refused("schema_version = 2\n");
    assert!(text.contains("schema_version") && text.contains("reads version 1"), "{text}");
    let text = refused("[log]\nlevel = \"info\"\n");
    assert!(text.contains("schema_version"), "{text}");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let text = load(Some(Path::new("/nonexistent/edge.toml")), []).unwrap_err().to_string();
    assert!(text.contains("/nonexistent/edge.toml") && text.contains("cannot be read"), "{text}");
}

#[test]
fn a_door_needs_its_camera_and_policy() {
    let text = refused("schema_version = 1\n[[door]]\nid = \"main\"\ncamera = \"back\"\npolicy = \"strict\"\n");
    assert!(text.contains("camera \"back\" does not exist"), "{text}");
    assert!(text.contains("policy \"strict\" does not exist; there is default"), "{text}");
}

#[test]
fn numbers_that_can_only_be_a_mistake_are_refused() {
    let text = refused(&format!(
        "schema_version = 1\n[models]\nsessions = 0\n{CAMERA}{DOOR}hold = \"2d\"\n[[policy]]\nid = \"a\"\nfreshness = \"1h\"\n"
    ));
    for expected in ["door main: hold", "policy a: freshness", "models: sessions"] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
}

#[test]
fn an_id_used_twice_in_one_file_is_refused() {
    let text = refused(&format!("schema_version = 1\n{CAMERA}{CAMERA}"));
    assert!(text.contains("camera front") && text.contains("twice"), "{text}");
}

#[test]
fn the_file_of_a_file_camera_must_exist() {
    let text = refused("schema_version = 1\n[[camera]]\nid = \"a\"\nsource = \"file\"\npath = \"/nowhere/clip.mp4\"\n");
    assert!(text.contains("camera a") && text.contains("/nowhere/clip.mp4"), "{text}");
}

#[test]
fn conf_d_and_the_environment_overlay_the_file_in_this_order() {
    let folder = Folder::with(&format!("schema_version = 1\n{CAMERA}{DOOR}hold = \"1s\"\n"));
    folder.write("conf.d/10-site.toml", "[[door]]\nid = \"main\"\nhold = \"2s\"\nregrant = \"2s\"\n");
    folder.write("conf.d/20-late.toml", "[[door]]\nid = \"main\"\nregrant = \"4s\"\n");
    folder.write("conf.d/README", "not TOML at all {");
    let environment = [("LINTEL__DOOR__MAIN__HOLD", "7s"), ("LINTEL__LOG__LEVEL", "debug"), ("LINTEL_CONFIG", "x")];
    let config = folder.load_with(&environment).unwrap().config;
    assert_eq!(config.doors.len(), 1);
    assert_eq!(config.doors[0].hold, Duration::from_secs(7));
    assert_eq!(config.doors[0].regrant, Duration::from_secs(4));
    assert_eq!(config.log.level, "debug");
}

#[test]
fn a_misspelt_variable_is_an_error_that_names_it() {
    let folder = Folder::with("schema_version = 1\n");
    let text = folder.load_with(&[("LINTEL__LOG__LEVL", "debug")]).unwrap_err().to_string();
    assert!(text.contains("environment variable LINTEL__LOG__LEVL") && text.contains("did you mean level?"), "{text}");
    let text = folder.load_with(&[("LINTEL__A__B__C__D", "1")]).unwrap_err().to_string();
    assert!(text.contains("LINTEL__A__B__C__D"), "{text}");
}

#[test]
fn what_is_shown_is_what_is_in_effect_without_passwords() {
    let camera = "[[camera]]\nid = \"front\"\nsource = \"rtsp\"\nurl = \"rtsp://door:hunter2@10.0.0.7/stream\"\n";
    let folder = Folder::with(&format!("schema_version = 1\n{camera}{DOOR}"));
    let loaded = folder.load().unwrap();
    for format in [Format::Toml, Format::Json] {
        let text = loaded.show(format, None);
        assert!(!text.contains("hunter2"), "{text}");
        assert!(text.contains("freshness") && text.contains("800ms") && text.contains("front"), "{text}");
    }
    // What is shown can be read again.
    let again = Folder::with(&loaded.show(Format::Toml, None));
    assert_eq!(again.load().unwrap().show(Format::Toml, None), loaded.show(Format::Toml, None));
}

#[test]
fn every_key_of_the_defaults_is_one_that_the_structs_know() {
    let defaults: toml::Table = toml::from_str(DEFAULTS).unwrap();
    let known: [(&str, &[&str]); 8] = [
        ("agent", schema::fields_of::<AgentConfig>()),
        ("clock", schema::fields_of::<ClockConfig>()),
        ("log", schema::fields_of::<LogConfig>()),
        ("models", schema::fields_of::<ModelsConfig>()),
        ("perceive", schema::fields_of::<PerceiveConfig>()),
        ("camera", schema::fields_of::<CameraConfig>()),
        ("door", schema::fields_of::<DoorConfig>()),
        ("policy", schema::fields_of::<PolicyConfig>()),
    ];
    for (section, fields) in known {
        assert!(!fields.is_empty(), "{section}: a misspelt key would not get its suggestion");
        for key in defaults[section].as_table().unwrap().keys() {
            assert!(fields.contains(&key.as_str()), "{section}.{key}");
        }
    }
}
