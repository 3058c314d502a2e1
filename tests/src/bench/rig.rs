//! A hub, a tenant and a claimed agent, ready to be measured.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::launcher::{Agent, AgentSetup, Hub, Places, Tenant, free_port, run_dir};
use crate::watch::Rows;

/// Everything of one installation; it ends and goes away when dropped.
pub(super) struct Rig {
    pub(super) agent: Agent,
    pub(super) hub: Hub,
    pub(super) rows: Rows,
    pub(super) setup: AgentSetup,
    pub(super) tenant: Tenant,
    /// From starting the processes to their being ready.
    pub(super) hub_ready: Duration,
    pub(super) agent_ready: Duration,
    // Last, so that everything that writes into it has ended before it goes.
    _dir: tempfile::TempDir,
}

impl Rig {
    /// Starts an installation with so many cameras that show `clip`, with `extra` configuration for the agent.
    pub(super) async fn start(places: &Places, n_cameras: usize, clip: &Path, extra: &str) -> Result<Self> {
        let dir = run_dir()?;
        let began = tokio::time::Instant::now();
        let hub = Hub::start(places, &dir.path().join("hub"), free_port()?, free_port()?).await?;
        let hub_ready = began.elapsed();
        let tenant = hub.create_tenant("bench")?;
        let site = hub.create_site(&tenant, "bench").await?;
        let token = hub.create_device(&tenant, &site, "terminal", n_cameras).await?;
        let edge = dir.path().join("edge");
        std::fs::create_dir(&edge)?;
        let setup = AgentSetup::create(places, &edge, n_cameras, clip, extra)?;
        setup.claim(&token)?;
        let (agent, agent_ready) = setup.start().await?;
        let rows = Rows::connect(&hub.ready().postgres).await?;
        Ok(Self { agent, hub, rows, setup, tenant, hub_ready, agent_ready, _dir: dir })
    }
}
