//! The edge agent as an installer runs it: configuration file, claim, run, status commands.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::time::Instant;

use super::{Places, Process, process};

/// Directories and configuration of one agent; it outlives restarts of the process.
pub struct AgentSetup {
    program: PathBuf,
    config: PathBuf,
    log: PathBuf,
    camera_clips: Vec<PathBuf>,
    runtime_dir: PathBuf,
}

/// A running agent.
pub struct Agent {
    process: Process,
}

impl AgentSetup {
    /// Writes the configuration of `n_cameras` file cameras with a door each, before all of which `first_clip` is put.
    ///
    /// `extra` is appended to the configuration as it is.
    pub fn create(places: &Places, dir: &Path, n_cameras: usize, first_clip: &Path, extra: &str) -> Result<Self> {
        let runtime_dir = dir.join("run");
        for folder in ["state", "run", "camera"] {
            std::fs::create_dir_all(dir.join(folder))?;
        }
        let setup = Self {
            program: places.programs.join("edge-agent"),
            config: dir.join("edge-agent.toml"),
            log: dir.join("edge-agent.log"),
            camera_clips: (0..n_cameras).map(|index| dir.join("camera").join(camera_name(index))).collect(),
            runtime_dir,
        };
        for camera in 0..n_cameras {
            setup.play_at(camera, first_clip)?;
        }
        std::fs::write(&setup.config, setup.config_text(places, dir, extra))?;
        Ok(setup)
    }

    fn config_text(&self, places: &Places, dir: &Path, extra: &str) -> String {
        let cameras: String = (0..self.camera_clips.len()).map(|index| self.camera_text(index)).collect();
        format!(
            r#"schema_version = 1

[agent]
state_dir = "{state}"
runtime_dir = "{run}"

[models]
manifest = "{manifest}"
weights = "{weights}"
onnxruntime = "{onnxruntime}"
{cameras}{extra}"#,
            state = dir.join("state").display(),
            run = self.runtime_dir.display(),
            manifest = places.repository.join("models/faceplugin/manifest.toml").display(),
            weights = places.parts.join("models/faceplugin").display(),
            onnxruntime = places.parts.join("onnxruntime/libonnxruntime.so").display(),
        )
    }

    fn camera_text(&self, index: usize) -> String {
        format!(
            r#"
[[camera]]
id = "{camera}"
source = "file"
path = "{clip}"
when_finished = "wait"

[[door]]
id = "{door}"
camera = "{camera}"
actuator = "simulated"
# Short, so that a person who stays in view is let in again soon and the story does not take long.
hold = "1s"
regrant = "500ms"
"#,
            camera = camera_name(index),
            door = door_name(index),
            clip = self.camera_clips[index].display(),
        )
    }

    /// Puts a clip before the first camera, in one step, as a file server would replace it.
    pub fn play(&self, clip: &Path) -> Result<()> {
        self.play_at(0, clip)
    }

    /// Puts a clip before the camera of this position.
    pub fn play_at(&self, camera: usize, clip: &Path) -> Result<()> {
        let path = &self.camera_clips[camera];
        let fresh = path.with_extension("new");
        std::fs::copy(clip, &fresh).with_context(|| format!("clip {} cannot be copied", clip.display()))?;
        std::fs::rename(&fresh, path)?;
        Ok(())
    }

    /// The socket on which the first simulated door shows its relay.
    pub fn door_socket(&self) -> PathBuf {
        self.door_socket_at(0)
    }

    /// The socket on which the door of this camera shows its relay.
    pub fn door_socket_at(&self, camera: usize) -> PathBuf {
        self.runtime_dir.join(format!("door-{}.sock", door_name(camera)))
    }

    /// Runs `edge-agent` with this configuration and returns its standard output.
    pub fn command(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(&self.config).args(arguments);
        process::output(command)
    }

    /// Claims this device's identity; the token travels in a file, since a command line can be read by anybody.
    pub fn claim(&self, token: &str) -> Result<()> {
        let file = self.config.with_extension("token");
        std::fs::write(&file, token)?;
        let path = file.to_str().context("the run directory's path is text")?;
        self.command(&["claim", "--token-file", path])?;
        Ok(())
    }

    /// Runs a status command and parses its JSON.
    pub fn status(&self, arguments: &[&str]) -> Result<Value> {
        let mut all = arguments.to_vec();
        all.extend(["-o", "json"]);
        let text = self.command(&all)?;
        serde_json::from_str(&text).with_context(|| format!("edge-agent {arguments:?} did not print JSON: {text}"))
    }

    /// Starts the agent and waits until its control socket answers. Returns it with the time that took.
    pub async fn start(&self) -> Result<(Agent, Duration)> {
        let began = Instant::now();
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(&self.config).arg("run").stdout(Stdio::null());
        let mut process = Process::spawn("edge-agent", command, &self.log)?;
        loop {
            process.check_alive()?;
            if self.door_socket().exists() && self.status(&["gallery", "status"]).is_ok() {
                return Ok((Agent { process }, began.elapsed()));
            }
            if began.elapsed() > Duration::from_secs(30) {
                bail!("the agent was not ready within 30 s; its log ends:\n{}", process.log_tail());
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }
}

impl Agent {
    /// The process, to measure, stop or kill it.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// The first camera is the entrance; the others are numbered.
pub fn camera_name(index: usize) -> String {
    if index == 0 { "entrance".to_owned() } else { format!("entrance-{}", index + 1) }
}

/// The door that the camera of this position watches.
pub fn door_name(index: usize) -> String {
    if index == 0 { "main".to_owned() } else { format!("main-{}", index + 1) }
}
