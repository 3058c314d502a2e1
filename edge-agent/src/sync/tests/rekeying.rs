//! A gallery's keys replaced by the hub, with the driver in between: no roster on the way is without its people.

use std::collections::BTreeSet;

use wire_contract::Code;
use wire_contract::gallery::{GalleryCondition, GalleryRebuild, GalleryState};

use super::super::testkit::{Answer, Asked};
use super::*;

/// Serves the link of the epoch that the gallery has at the time.
async fn hub(pki: &Pki, epoch: &Arc<AtomicU64>) -> HttpsHub {
    let epoch = Arc::clone(epoch);
    HttpsHub::start(pki, true, move |asked: Asked| -> Answer {
        assert!(asked.line.starts_with("GET /v1/device/link?"), "{}", asked.line);
        let epoch = u32::try_from(epoch.load(Ordering::SeqCst)).unwrap();
        (200, serde_json::to_value(link_answer_for(asked.nonce(), 1, &[(GALLERY, epoch)])).unwrap()).into()
    })
    .await
}

/// The same people in a gallery of this epoch.
fn gallery(epoch: u32) -> HubGallery {
    let mut gallery = HubGallery::new(epoch);
    (1..=20).for_each(|person| gallery.enrol(person));
    gallery.delete(7);
    gallery
}

impl Far {
    async fn state(&mut self) -> GalleryState {
        loop {
            let shipment = self.shipment(Parcel::Report).await;
            let said = serde_json::from_slice(&verified(&shipment.topic, &shipment.payload)).unwrap();
            if let GalleryUp::State { mut galleries, .. } = said {
                return galleries.remove(0);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gallery_goes_on_under_other_keys_and_no_roster_is_without_its_people() {
    let (pki, epoch) = (Pki::new(), Arc::new(AtomicU64::new(1)));
    let server = hub(&pki, &epoch).await;
    let mut rig = Rig::start(Device::of(&pki, &server.url, 1).linked());
    let mut far = rig.line().await;
    let old = gallery(1);
    far.say(sealed(DownChannel::Gallery, &GalleryDown::Records(old.message(1)))).await;
    let galleries = Arc::clone(&rig.device.galleries);
    eventually("it is filled", || galleries.roster().load().lines()[0].version == old.version()).await;
    eventually("the link is fetched", || rig.status.borrow().link_epoch == Some(1)).await;

    // Every roster from here on is looked at.
    let stop = CancellationToken::new();
    let watched = tokio::spawn({
        let (galleries, stop) = (Arc::clone(&galleries), stop.clone());
        async move {
            let mut seen = BTreeSet::new();
            while !stop.is_cancelled() {
                let roster = galleries.roster().load_full();
                assert!(roster.ready() && roster.snapshot().n_people() >= 19, "a door would have denied");
                seen.insert((roster.lines()[0].epoch, roster.generation()));
                tokio::task::yield_now().await;
            }
            seen
        }
    });
    epoch.store(2, Ordering::SeqCst);
    let mut new = gallery(2);
    let order = GalleryRebuild {
        v: V1,
        gallery: wire_contract::GalleryId(GALLERY.0),
        epoch: 2,
        reason: Code::EpochChanged,
        answers: None,
    };
    far.say(sealed(DownChannel::Gallery, &GalleryDown::Rebuild(order.clone()))).await;
    let clock = Arc::clone(&rig.clock);
    eventually("the new epoch is there", || {
        clock.forward(Duration::from_millis(100));
        galleries.roster().load().lines()[0].epoch == 2
    })
    .await;
    let expected = GalleryState {
        gallery: wire_contract::GalleryId(GALLERY.0),
        epoch: 2,
        version: new.version(),
        root: wire_contract::Hash32(new.root().0),
        condition: GalleryCondition::Ready,
    };
    let reported = async { while far.state().await != expected {} };
    tokio::time::timeout(PATIENCE, reported).await.expect("what the hub has is reported");

    // The order once more, and then what comes next.
    far.say(sealed(DownChannel::Gallery, &GalleryDown::Rebuild(order))).await;
    let from = new.version() + 1;
    new.enrol(21);
    far.say(sealed(DownChannel::Gallery, &GalleryDown::Records(new.message(from)))).await;
    eventually("the next person is there", || galleries.roster().load().snapshot().n_people() == 20).await;
    stop.cancel();
    let seen = watched.await.unwrap();
    let generations: BTreeSet<u64> = seen.iter().map(|(_, generation)| *generation).collect();
    let (first, last) = (*generations.first().unwrap(), galleries.roster().load().generation());
    assert_eq!(last - first, 2, "one roster took the place of the other, and then the next person came");
    assert!(rig.happenings.try_recv().is_err(), "nothing was thrown away");
}
