//! M10: a device calls itself by another's client id. The broker goes by the certificate: the victim stays connected, and
//! the thief gets nothing of the victim's.

use anyhow::Result;
use fleet_sim::device::{Device, SPACE_ID};
use wire_contract::{DeviceId, DownChannel, TenantId, Topic};

use crate::lab::Lab;
use crate::line::{Probe, Site};
use crate::outcome::{Control, Verdict};
use crate::row::{Need, Row};

/// The row.
pub(super) static M10: Row = Row {
    id: "M10",
    title: "another's client id: nobody's session is taken over",
    count: 10_000,
    small: 50,
    needs: &[Need::Part("postgres"), Need::Program("mosquitto", "mosquitto")],
    run: thefts,
};

/// Attempts between two looks at the victim.
const AT_ONCE: u64 = 25;
const SECRET: &[u8] = b"for the victim alone";

fn thefts(lab: &mut Lab) -> Result<Verdict> {
    let count = lab.count();
    let tally = lab.phase("thefts", 1, |_, tally| {
        let site = Site::open(2)?;
        let victim = Device::open(&site.device_dir(0), SPACE_ID, None)?.identity;
        let thief = Device::open(&site.device_dir(1), SPACE_ID, None)?.identity;
        let (port, password) = site.broker_as_hub()?;
        let name = victim.device.to_string();
        let (tenant, device) = (TenantId(victim.tenant), DeviceId(victim.device));
        let down = [Topic::Down { tenant, device, channel: DownChannel::Evtack }.to_string()];
        site.block_on(async {
            let hub = Probe::hub(port, &password).await?;
            let line = Probe::device(&victim, &name, None).await?;
            line.subscribe(&down).await?;
            let mut said = 0;
            while tally.injected < count {
                let mut thieves = Vec::new();
                for _ in 0..AT_ONCE.min(count - tally.injected) {
                    let stolen = Probe::device(&thief, &name, None).await;
                    tally.injected += 1;
                    // Let in as itself or not let in at all: both are right.
                    tally.add("let_in_as_itself", u64::from(stolen.is_ok()));
                    thieves.extend(stolen.ok());
                }
                if let Some(last) = thieves.last() {
                    last.subscribe(&down).await?;
                }
                hub.publish(&down, SECRET, false).await?;
                said += 1;
                let heard = line.hears(SECRET, said).await;
                tally.require(line.alive() && heard, || "the victim lost its session or a message".to_owned());
                let stolen: u64 = thieves.iter().map(|thief| thief.heard(SECRET, |_| true)).sum();
                tally.require(stolen == 0, || format!("the thief heard {stolen} of the victim's messages"));
            }
            // The control: with the victim's own certificate the take-over works, and is seen.
            let _again = Probe::device(&victim, "anything", None).await?;
            hub.publish(&down, SECRET, false).await?;
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            tally.add("control_taken_over", u64::from(!line.alive()));
            anyhow::Ok(())
        })
    })?;
    let control = Control::of("taken_over", tally.count_of("control_taken_over"));
    Ok(Verdict { tally, control })
}
