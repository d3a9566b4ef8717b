//! The client's end: one call at a time, cancelled from anywhere.

use super::{
    CANCEL_GRACE, Call, HANDSHAKE_TIMEOUT, Hello, MAGIC, Message, Receiver, Request, Response,
    Stream, VERSION, Welcome, WireError, send,
};
use crate::api::{OraError, Tags};
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How a call ended on the client's side.
#[derive(Debug)]
pub enum Outcome {
    Answered(Response),
    /// The call's own timeout ran out and the server confirmed the cancel; the
    /// session can be used again.
    TimedOut(Response),
}

/// The client's end of a connection. Calls are made one at a time; a cancel
/// may come from any thread.
#[derive(Debug)]
pub struct Client {
    welcome: Welcome,
    stream: Stream,
    writer: Mutex<Stream>,
    receiver: Mutex<Receiver>,
    calls: AtomicU64,
    running: AtomicU64,
    alive: AtomicBool,
}

impl Client {
    /// Greets the server over a fresh stream.
    pub fn attach(stream: Stream, service: &str) -> Result<Self, WireError> {
        let deadline = Some(Instant::now() + HANDSHAKE_TIMEOUT);
        let mut writer = stream.try_clone().map_err(WireError::Lost)?;
        let mut receiver = Receiver::new(stream.try_clone().map_err(WireError::Lost)?);
        let mut opening = MAGIC.to_vec();
        opening.push(VERSION);
        writer.write_all(&opening).map_err(WireError::Lost)?;
        send(
            &mut writer,
            &Hello {
                service: service.to_owned(),
            },
        )?;
        let answer: Result<Welcome, OraError> = receiver.receive(deadline)?;
        Ok(Self {
            welcome: answer.map_err(WireError::Refused)?,
            stream,
            writer: Mutex::new(writer),
            receiver: Mutex::new(receiver),
            calls: AtomicU64::new(0),
            running: AtomicU64::new(0),
            alive: AtomicBool::new(true),
        })
    }

    /// What the server said of itself.
    pub fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// Whether the connection can still be used, as far as is known without
    /// asking.
    pub fn alive(&self) -> bool {
        self.alive.load(Ordering::SeqCst)
    }

    pub fn close(&self) {
        self.alive.store(false, Ordering::SeqCst);
        self.stream.close();
    }

    /// Makes a call and waits for its answer; after `timeout` it is cancelled.
    /// After an error the connection is of no more use.
    pub fn call(
        &self,
        request: Request,
        close: Vec<u32>,
        tags: Option<Tags>,
        timeout: Option<Duration>,
    ) -> Result<Outcome, WireError> {
        let mut receiver = lock(&self.receiver);
        let id = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        let call = Call {
            id,
            close,
            tags,
            request,
        };
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        self.running.store(id, Ordering::SeqCst);
        let result = self.exchange(&mut receiver, call, deadline);
        self.running.store(0, Ordering::SeqCst);
        // A frame that was refused before a byte of it left does no harm.
        if result
            .as_ref()
            .is_err_and(|error| !matches!(error, WireError::TooLong(_)))
        {
            self.close();
        }
        result
    }

    /// Interrupts the running call, if any.
    pub fn cancel(&self) -> Result<(), WireError> {
        match self.running.load(Ordering::SeqCst) {
            0 => Ok(()),
            call => send(&mut *lock(&self.writer), &Message::Cancel { call }),
        }
    }

    fn exchange(
        &self,
        receiver: &mut Receiver,
        call: Call,
        deadline: Option<Instant>,
    ) -> Result<Outcome, WireError> {
        send(&mut *lock(&self.writer), &Message::Call(Box::new(call)))?;
        match receiver.receive(deadline) {
            Ok(response) => Ok(Outcome::Answered(response)),
            Err(WireError::TimedOut(_)) => {
                self.cancel()?;
                let grace = Some(Instant::now() + CANCEL_GRACE);
                receiver.receive(grace).map(Outcome::TimedOut)
            }
            Err(error) => Err(error),
        }
    }
}

/// A poisoned lock is taken all the same: nothing here is left half-written.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
