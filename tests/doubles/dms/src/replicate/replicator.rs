//! The engine that moves rows, in the direction that the endpoints give.

use super::{BoxFuture, Engine, Job, connect, forward, reverse};
use crate::config::EndpointConfig;
use crate::task::state::{Definition, Ending};
use std::sync::Arc;

/// The engine that moves rows.
#[derive(Debug, Default)]
pub struct Replicator;

impl Engine for Replicator {
    fn run(&self, job: Job) -> BoxFuture<Ending> {
        Box::pin(async move {
            match (&*job.source.clone(), &*job.target.clone()) {
                (EndpointConfig::Oracle(source), EndpointConfig::Postgres(target)) => {
                    forward::run(job, source.clone(), target.clone()).await
                }
                (EndpointConfig::Postgres(source), EndpointConfig::Oracle(target)) => {
                    reverse::run(job, source.clone(), target.clone()).await
                }
                _ => Ending::Fatal("source and target have the same engine".into()),
            }
        })
    }

    fn discard(
        &self,
        task: Arc<Definition>,
        source: Arc<EndpointConfig>,
    ) -> BoxFuture<Result<(), String>> {
        Box::pin(async move {
            match &*source {
                EndpointConfig::Postgres(source) => reverse::drop_own_slot(&task, source).await,
                EndpointConfig::Oracle(_) => Ok(()),
            }
        })
    }

    fn test(&self, endpoint: Arc<EndpointConfig>) -> BoxFuture<Result<(), String>> {
        Box::pin(async move { connect::test(&endpoint).await })
    }
}
