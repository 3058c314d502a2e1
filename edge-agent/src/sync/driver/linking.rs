//! The driver's part of the link: the keys of the wire, fetched when they are needed and taken in.

use std::sync::Arc;

use wire_contract::LinkAnswer;

use super::{Connection, Driver, FetchError, LINK_SPACING, blocking};
use crate::sync::link::{self, LinkRing};
use crate::sync::transport::Connect;

impl<C: Connect> Driver<C> {
    pub(super) async fn load_ring(&mut self) {
        let (sync, identity) = (Arc::clone(&self.sync), Arc::clone(&self.identity));
        let loaded = blocking(move || LinkRing::load(&sync.keys, &identity)).await;
        match loaded {
            Ok(ring) => {
                let epoch = ring.as_ref().map(LinkRing::epoch);
                self.status.send_modify(|status| status.link_epoch = epoch);
                self.ring = ring;
            }
            Err(error) => self.trouble("link_keys_unreadable", &error),
        }
    }

    /// Asks for the link soon, however often the hub's messages say that it is needed.
    pub(super) fn want_link(&mut self) {
        let earliest = self.fetched_at.map_or(self.now(), |last| last + LINK_SPACING);
        self.fetch_at = Some(self.fetch_at.map_or(earliest, |at| at.min(earliest)));
    }

    pub(super) async fn on_link(&mut self, answer: Result<LinkAnswer, FetchError>) {
        self.fetching = None;
        self.fetched_at = Some(self.now());
        let taken = match answer {
            Ok(answer) => {
                let at = answer.server_time.at;
                let (sync, identity) = (Arc::clone(&self.sync), Arc::clone(&self.identity));
                let taken = blocking(move || link::take_in(&answer, &identity, &sync.keys, &sync.galleries)).await;
                if taken.is_ok() {
                    self.in_contact(at);
                }
                taken.map_err(FetchError::from)
            }
            Err(error) => Err(error),
        };
        if let Err(error) = taken {
            self.fetch_at = Some(self.now() + self.fetch_backoff.next(rand::random()));
            self.trouble("link_not_fetched", &error);
            return;
        }
        self.fetch_backoff.reset();
        let before = self.ring.as_ref().map(LinkRing::epoch);
        self.load_ring().await;
        let after = self.ring.as_ref().map(LinkRing::epoch);
        tracing::info!(event = "link_fetched", link_epoch = after, "link and gallery keys are up to date");
        if before != after && before.is_some() && !matches!(self.connection, Connection::Down(_)) {
            // The will on the broker carries the old epoch; a new connection leaves a new one.
            self.hang_up(self.now());
        }
        self.reports.changed(self.now());
    }
}
