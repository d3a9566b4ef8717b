//! Authorization: one row for every RPC, default deny.
//!
//! The certificate has been verified before; the decision depends on the role
//! in it. A path without a row is refused for every role.

use super::refused;
use lockstep_api::{Code, Diagnosis};
use lockstep_pki::{Peer, Role};
use std::task::{Context, Poll};
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};

/// Every RPC and the one role that may call it.
pub const MATRIX: &[(&str, Role)] = &[
    ("/lockstep.v1.AgentService/Session", Role::Agent),
    ("/lockstep.v1.OperatorService/Preflight", Role::Operator),
    ("/lockstep.v1.OperatorService/StartRun", Role::Operator),
    ("/lockstep.v1.OperatorService/ListRuns", Role::Operator),
    ("/lockstep.v1.OperatorService/GetRun", Role::Operator),
    ("/lockstep.v1.OperatorService/WatchRun", Role::Operator),
    ("/lockstep.v1.OperatorService/ListRunEvents", Role::Operator),
    ("/lockstep.v1.OperatorService/ApproveRun", Role::Operator),
    ("/lockstep.v1.OperatorService/PauseRun", Role::Operator),
    ("/lockstep.v1.OperatorService/ResumeRun", Role::Operator),
    ("/lockstep.v1.OperatorService/RetryRun", Role::Operator),
    ("/lockstep.v1.OperatorService/SkipRun", Role::Operator),
    ("/lockstep.v1.OperatorService/RollbackRun", Role::Operator),
    ("/lockstep.v1.OperatorService/AbortRun", Role::Operator),
    ("/lockstep.v1.OperatorService/WaiveTask", Role::Operator),
    ("/lockstep.v1.OperatorService/ResolveTask", Role::Operator),
    ("/lockstep.v1.OperatorService/ListAgents", Role::Operator),
    ("/lockstep.v1.OperatorService/AcceptAgent", Role::Operator),
];

/// Whether this role may call this path.
pub fn allows(path: &str, role: Role) -> bool {
    MATRIX
        .iter()
        .any(|(known, allowed)| *known == path && *allowed == role)
}

/// Applies the matrix to every service.
#[derive(Clone)]
pub struct Layer;

impl<S> tower_layer::Layer<S> for Layer {
    type Service = Authorized<S>;

    fn layer(&self, inner: S) -> Authorized<S> {
        Authorized { inner }
    }
}

#[derive(Clone)]
pub struct Authorized<S> {
    inner: S,
}

impl<S> tower_service::Service<Request<Body>> for Authorized<S>
where
    S: tower_service::Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = std::pin::Pin<
        Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send + 'static>,
    >;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let path = request.uri().path();
        let peer = request.extensions().get::<Peer>();
        if peer.is_some_and(|peer| allows(path, peer.identity.role())) {
            return Box::pin(self.inner.call(request));
        }
        let who = peer.map_or_else(|| "nobody".to_owned(), |peer| peer.identity.to_string());
        tracing::warn!(who, path, "LS4206: refused by the authorization matrix");
        let what = format!("{who} may not call {path}");
        let status = refused(
            tonic::Code::PermissionDenied,
            Diagnosis::new(Code::LS4206, what),
        );
        Box::pin(async move { Ok(status.into_http()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;

    #[test]
    fn every_rpc_has_one_row_and_every_row_an_rpc() {
        let set = prost_types::FileDescriptorSet::decode(lockstep_proto::DESCRIPTORS).unwrap();
        let mut served = Vec::new();
        for file in &set.file {
            for service in &file.service {
                for method in &service.method {
                    let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                    served.push(path);
                }
            }
        }
        let mut rows: Vec<&str> = MATRIX.iter().map(|(path, _)| *path).collect();
        served.sort();
        rows.sort_unstable();
        assert_eq!(rows, served);
    }

    #[test]
    fn roles_do_not_mix() {
        for (path, allowed) in MATRIX {
            for role in [Role::Agent, Role::Coordinator, Role::Operator] {
                assert_eq!(allows(path, role), role == *allowed, "{path} {role:?}");
            }
        }
        assert!(!allows(
            "/lockstep.v1.OperatorService/Unheard",
            Role::Operator
        ));
    }
}
