//! Waiting for a deadline of the barrier protocol.

use std::time::Duration;

/// Waits for a deadline on the boot-time clock (milliseconds). Returns immediately if
/// it has passed, and never if there is none.
///
/// tokio's timer stops while the machine is suspended, so after a resume this
/// may return late; it never returns early.
pub async fn sleep_until(deadline: Option<u64>) {
    match deadline {
        Some(deadline) => {
            let wait = deadline.saturating_sub(lockstep_clock::boot_time());
            tokio::time::sleep(Duration::from_millis(wait)).await;
        }
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_a_deadline_ends_the_wait() {
        let soon = Duration::from_millis(50);
        let now = lockstep_clock::boot_time();
        tokio::time::timeout(soon, sleep_until(Some(now.saturating_sub(1000))))
            .await
            .unwrap();
        for pending in [None, Some(now + 60_000)] {
            let outcome = tokio::time::timeout(soon, sleep_until(pending)).await;
            assert!(outcome.is_err(), "{pending:?}");
        }
    }
}
