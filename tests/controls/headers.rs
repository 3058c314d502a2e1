//! Each control names a test that exists and has a switch: `run` finds out only after minutes of building. And a control that
//! fired is tried again when what it stands on changes.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The first line of a control: `# test: PACKAGE KIND TEST`.
struct Header {
    package: String,
    /// `--lib` or `--test=NAME`.
    kind: String,
    /// The last part of the test's path.
    function: String,
}

fn header(patch: &str) -> Result<Header, String> {
    let line = patch.lines().next().unwrap_or_default();
    let words: Vec<&str> = line.strip_prefix("# test: ").ok_or("does not begin with '# test: '")?.split(' ').collect();
    let [package, kind, test] = words.as_slice() else {
        return Err(format!("'{line}' should be '# test: PACKAGE KIND TEST'"));
    };
    let function = test.rsplit("::").next().unwrap_or_default();
    Ok(Header { package: (*package).into(), kind: (*kind).into(), function: function.into() })
}

/// What is wrong with a control, if anything is.
fn fault_of(patch: &str, folders: &[(String, PathBuf)], root: &Path) -> Result<(), String> {
    let header = header(patch)?;
    let folder = folders.iter().find(|(name, _)| *name == header.package).map(|(_, folder)| folder);
    let folder = folder.ok_or_else(|| format!("there is no package '{}'", header.package))?;
    let sources = match header.kind.strip_prefix("--test=") {
        Some(name) => {
            let tests = folder.join("tests");
            vec![tests.join(name), tests.join(format!("{name}.rs"))]
        }
        None if header.kind == "--lib" => vec![folder.join("src")],
        None => return Err(format!("'{}' should be --lib or --test=NAME", header.kind)),
    };
    // Not `fn NAME(`: the rows of the fault lab are made by a macro.
    if !sources.iter().any(|source| says(source, &header.function)) {
        return Err(format!("no test {} in {sources:?}", header.function));
    }
    let mut changed = patch.lines().filter_map(|line| line.strip_prefix("--- a/")).peekable();
    changed.peek().ok_or("changes no file")?;
    if let Some(gone) = changed.find(|file| !root.join(file).is_file()) {
        return Err(format!("changes {gone}, which is not there"));
    }
    // All controls are built together: one without a switch would have its guard off while the others are tried.
    let switched = patch.lines().any(|line| line.starts_with('+') && line.contains("GUARD_OFF"));
    if switched { Ok(()) } else { Err("has no GUARD_OFF in what it adds".into()) }
}

/// Whether the file, or a file of the folder, has this text.
fn says(place: &Path, wanted: &str) -> bool {
    match fs::read_dir(place) {
        Ok(entries) => entries.flatten().any(|entry| says(&entry.path(), wanted)),
        Err(_) => fs::read_to_string(place).is_ok_and(|text| text.contains(wanted)),
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_owned()
}

/// The packages of the workspace and their folders.
fn packages() -> Vec<(String, PathBuf)> {
    let arguments = ["metadata", "--no-deps", "--locked", "--format-version", "1"];
    let output = Command::new(env!("CARGO")).args(arguments).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap().iter().map(|package| {
        let manifest = Path::new(package["manifest_path"].as_str().unwrap());
        (package["name"].as_str().unwrap().to_owned(), manifest.parent().unwrap().to_owned())
    });
    packages.collect()
}

#[test]
fn each_control_names_a_test_changes_files_that_are_there_and_has_a_switch() {
    let (packages, folder) = (packages(), root().join("tests/controls"));
    let mut seen = 0;
    for entry in fs::read_dir(folder).unwrap().flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "patch") {
            let fault = fault_of(&fs::read_to_string(entry.path()).unwrap(), &packages, &root());
            assert_eq!(fault, Ok(()), "{}", entry.path().display());
            seen += 1;
        }
    }
    assert!(seen > 0, "there are controls");
}

#[test]
fn a_control_that_names_nothing_is_caught() {
    let packages = packages();
    let change = "\n--- a/tests/controls/headers.rs\n";
    for (patch, said) in [
        ("", "does not begin"),
        ("# test: face-core --lib", "PACKAGE KIND TEST"),
        ("# test: no-such --lib a::b", "no package"),
        ("# test: face-core --bench a::b", "--lib or --test=NAME"),
        ("# test: face-core --lib door::tests::there_is_no_such_test", "there_is_no_such_test"),
    ] {
        let fault = fault_of(&format!("{patch}{change}"), &packages, &root()).unwrap_err();
        assert!(fault.contains(said), "{fault}");
    }
    let named = "# test: face-core --lib door::tests::a_stale_frame_never_opens\n";
    assert!(fault_of(named, &packages, &root()).unwrap_err().contains("changes no file"));
    let gone = format!("{named}--- a/no/such/file.rs\n");
    assert!(fault_of(&gone, &packages, &root()).unwrap_err().contains("no/such/file.rs"));
    let always_off = format!("{named}# Guard off: not by GUARD_OFF.\n{}-    if guard {{\n", change.trim_start());
    assert!(fault_of(&always_off, &packages, &root()).unwrap_err().contains("no GUARD_OFF"));
    assert_eq!(fault_of(&format!("{always_off}+    if guard && !GUARD_OFF {{\n"), &packages, &root()), Ok(()));
}

/// A workspace of three packages, of which `above` stands on `below`, and a control of `above`.
fn small_workspace() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let write = |file: &str, text: &str| {
        let path = dir.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("Cargo.toml", "[workspace]\nresolver = \"3\"\nmembers = [\"above\", \"below\", \"apart\"]\n");
    for (name, dependencies) in [("above", "below = { path = \"../below\" }\n"), ("below", ""), ("apart", "")] {
        let manifest = format!("[package]\nname = \"{name}\"\nedition = \"2024\"\n[dependencies]\n{dependencies}");
        write(&format!("{name}/Cargo.toml"), &manifest);
        write(&format!("{name}/src/lib.rs"), "");
    }
    write("models/manifest.toml", "");
    write("tests/controls/guard.patch", "# test: above --lib tests::it\n");
    let made = Command::new(env!("CARGO")).args(["generate-lockfile", "--offline"]).current_dir(dir.path()).status();
    assert!(made.unwrap().success());
    dir
}

/// What `inputs.py` tells of the control in there.
fn inputs(workspace: &Path) -> String {
    let listed =
        Command::new("find").args([".", "-type", "f", "-printf", "%P\n"]).current_dir(workspace).output().unwrap();
    let list = tempfile::NamedTempFile::new().unwrap();
    fs::write(list.path(), listed.stdout).unwrap();
    let mut command = Command::new("python3");
    command.arg(root().join("tests/controls/inputs.py")).arg("--root").arg(workspace).arg("--files").arg(list.path());
    let output = command.arg("guard").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_control_is_tried_again_when_anything_below_its_test_changes_and_not_when_something_else_does() {
    let workspace = small_workspace();
    let mut before = inputs(workspace.path());
    assert!(before.starts_with("guard "), "{before}");
    for (file, tried_again) in [
        ("apart/src/lib.rs", false),
        ("apart/src/new.rs", false),
        ("above/src/lib.rs", true),
        ("above/tests/new.rs", true),
        ("below/src/lib.rs", true),
        ("models/manifest.toml", true),
        ("tests/controls/guard.patch", true),
        ("Cargo.lock", true),
    ] {
        let path = workspace.path().join(file);
        let text = fs::read_to_string(&path).unwrap_or_default();
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, format!("{text}{}\n", if file.ends_with(".rs") { "// changed" } else { "# changed" }))
            .unwrap();
        let after = inputs(workspace.path());
        assert_eq!(after != before, tried_again, "{file}");
        before = after;
    }
}
