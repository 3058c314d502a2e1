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
    camera_clip: PathBuf,
    runtime_dir: PathBuf,
}

/// A running agent.
pub struct Agent {
    process: Process,
}

impl AgentSetup {
    /// Writes the configuration of a door with one file camera, which shows nothing until a clip is put before it.
    ///
    /// `extra` is appended to the configuration as it is.
    pub fn create(places: &Places, dir: &Path, first_clip: &Path, extra: &str) -> Result<Self> {
        let runtime_dir = dir.join("run");
        for folder in ["state", "run", "camera"] {
            std::fs::create_dir_all(dir.join(folder))?;
        }
        let setup = Self {
            program: places.programs.join("edge-agent"),
            config: dir.join("edge-agent.toml"),
            log: dir.join("edge-agent.log"),
            camera_clip: dir.join("camera/entrance"),
            runtime_dir,
        };
        setup.play(first_clip)?;
        std::fs::write(&setup.config, setup.config_text(places, dir, extra))?;
        Ok(setup)
    }

    fn config_text(&self, places: &Places, dir: &Path, extra: &str) -> String {
        format!(
            r#"schema_version = 1

[agent]
state_dir = "{state}"
runtime_dir = "{run}"

[models]
manifest = "{manifest}"
weights = "{weights}"
onnxruntime = "{onnxruntime}"

[[camera]]
id = "entrance"
source = "file"
path = "{clip}"
when_finished = "wait"

[[door]]
id = "main"
camera = "entrance"
actuator = "simulated"
# Short, so that a person who stays in view is let in again soon and the story does not take long.
hold = "1s"
regrant = "500ms"
{extra}"#,
            state = dir.join("state").display(),
            run = self.runtime_dir.display(),
            manifest = places.repository.join("models/faceplugin/manifest.toml").display(),
            weights = places.parts.join("models/faceplugin").display(),
            onnxruntime = places.parts.join("onnxruntime/libonnxruntime.so").display(),
            clip = self.camera_clip.display(),
        )
    }

    /// Puts a clip before the camera, in one step, as a file server would replace it.
    pub fn play(&self, clip: &Path) -> Result<()> {
        let fresh = self.camera_clip.with_extension("new");
        std::fs::copy(clip, &fresh).with_context(|| format!("clip {} cannot be copied", clip.display()))?;
        std::fs::rename(&fresh, &self.camera_clip)?;
        Ok(())
    }

    /// The socket on which the simulated door shows its relay.
    pub fn door_socket(&self) -> PathBuf {
        self.runtime_dir.join("door-main.sock")
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
