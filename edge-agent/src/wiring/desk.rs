//! Who answers the control socket: from the first moment, also while the models are opened and warmed up.
//!
//! In: questions. Out: the board's answers once it stands, before that what the start is waiting for. With TensorRT a
//! first start takes minutes, and an operator must be able to tell that from a hang.

use std::sync::OnceLock;

use face_core::MonoTime;
use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::status::Board;
use crate::clock::{Clock, SystemClock};
use crate::control::{Answer, Ask};

/// What a start mostly waits for.
pub(super) const STARTING: &str = "opening and warming up the models";

/// The answering side of the control socket.
pub(super) struct Desk {
    clock: SystemClock,
    began: MonoTime,
    board: OnceLock<Board>,
}

impl Desk {
    pub(super) fn new(clock: SystemClock) -> Self {
        let began = clock.now();
        Self { clock, began, board: OnceLock::new() }
    }

    /// From here on the board answers.
    pub(super) fn take_over(&self, board: Board) {
        // There is one start, so there is one board.
        let _ = self.board.set(board);
    }

    fn starting(&self, ask: Ask) -> Result<Value, (&'static str, String)> {
        let waited_s = self.clock.now().since(self.began).as_secs();
        match ask {
            Ask::Status => Ok(json!({
                "version": env!("CARGO_PKG_VERSION"),
                "ready": false,
                "starting": STARTING,
                "starting_s": waited_s,
            })),
            _ => Err(("unavailable", format!("the agent is starting: {STARTING}, {waited_s} s so far; ask again"))),
        }
    }
}

impl Answer for Desk {
    fn answer(&self, ask: Ask) -> BoxFuture<'_, Result<Value, (&'static str, String)>> {
        match self.board.get() {
            Some(board) => board.answer(ask),
            None => Box::pin(std::future::ready(self.starting(ask))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn before_the_board_stands_the_start_is_told_and_nothing_is_made_up() {
        let desk = Desk::new(SystemClock::default());
        let status = desk.answer(Ask::Status).await.unwrap();
        assert_eq!((&status["ready"], &status["starting"]), (&json!(false), &json!(STARTING)));
        let (code, message) = desk.answer(Ask::GalleryStatus).await.unwrap_err();
        assert_eq!(code, "unavailable");
        assert!(message.contains("starting"), "{message}");
    }
}
