//! The listeners of the admin and its table of paths, and the probe beside them.

use super::state::AdminState;
use super::{api, envoy, guard, probe};
use crate::handover::protocol::{Place, Placed};
use crate::settings::AdminAddr;
use anyhow::{Context, Result};
use axum::routing::get;
use axum::{Router, middleware};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use tokio::net::{TcpListener, UnixListener};
use tokio::task::AbortHandle;

/// Every path, in one place.
fn paths(state: Arc<AdminState>) -> Router {
    Router::new()
        .route("/", get(envoy::index))
        .route("/ready", get(envoy::ready))
        .route("/server_info", get(envoy::server_info))
        .route("/stats", get(envoy::stats))
        .route("/stats/prometheus", get(envoy::prometheus))
        .route("/config_dump", get(envoy::config_dump))
        .route("/clusters", get(envoy::clusters))
        .route("/listeners", get(envoy::listeners))
        .route("/certs", get(envoy::certs))
        .route("/api/v1/status", get(api::status))
        .route("/api/v1/connections", get(api::connections))
        .route("/api/v1/streams", get(api::streams))
        .route("/api/v1/fairness", get(api::fairness))
        .route("/api/v1/listeners", get(api::listeners))
        .route("/api/v1/routes", get(api::routes))
        .route("/api/v1/services", get(api::services))
        .route("/api/v1/endpoints", get(api::endpoints))
        .route("/api/v1/certificates", get(api::certificates))
        .route("/api/v1/kernel", get(api::kernel))
        .route("/api/v1/revisions", get(api::revisions))
        .route("/api/v1/settings", get(api::settings))
        .with_state(state)
}

/// The admin's listening sockets, and the tasks that serve them.
#[derive(Debug, Default)]
pub struct Doors(Vec<Door>);

#[derive(Debug)]
struct Door {
    place: Place,
    socket: OwnedFd,
    task: AbortHandle,
}

impl Doors {
    /// Duplicates of the sockets, for a successor.
    pub fn lend(&self) -> std::io::Result<Vec<Placed>> {
        let lent = self
            .0
            .iter()
            .map(|door| Ok((door.place.clone(), door.socket.try_clone()?)));
        lent.collect()
    }

    /// Opens the probe's, with a predecessor's socket where it is the same.
    pub fn open_probe(
        &mut self,
        address: SocketAddr,
        inherited: Option<(SocketAddr, OwnedFd)>,
        state: Arc<AdminState>,
    ) -> Result<()> {
        let inherited = inherited.filter(|(theirs, _)| *theirs == address);
        let (socket, task) = probe::start(address, inherited.map(|(_, socket)| socket), state)?;
        let place = Place::Probe { address };
        self.0.push(Door { place, socket, task });
        Ok(())
    }

    /// Takes no more connections; those that are open are served on.
    pub fn close(&mut self) {
        for door in self.0.drain(..) {
            door.task.abort();
        }
    }
}

/// Binds every address, so that a bad one is an error at start, then serves them until the runtime ends or the doors are
/// closed. Sockets of a predecessor are served instead of new ones where there are some.
pub async fn start(
    addresses: &[AdminAddr],
    mut inherited: Vec<(AdminAddr, OwnedFd)>,
    state: Arc<AdminState>,
) -> Result<Doors> {
    let mut doors = Vec::new();
    for address in addresses {
        let at = inherited.iter().position(|(theirs, _)| theirs == address);
        let socket = at.map(|at| inherited.swap_remove(at).1);
        match address {
            AdminAddr::None => {}
            AdminAddr::Tcp(addr) => {
                let listener = match socket {
                    Some(socket) => TcpListener::from_std(socket.into())?,
                    None => {
                        let bound = TcpListener::bind(addr).await;
                        bound.with_context(|| format!("admin on {addr}: choose another with --admin HOST:PORT"))?
                    }
                };
                let app = paths(state.clone()).layer(middleware::from_fn(guard::browser));
                doors.push(Door {
                    place: Place::AdminTcp { address: *addr },
                    socket: listener.as_fd().try_clone_to_owned()?,
                    task: tokio::spawn(async move { axum::serve(listener, app).await }).abort_handle(),
                });
            }
            AdminAddr::Unix(path) => {
                let listener = match socket {
                    Some(socket) => UnixListener::from_std(socket.into())?,
                    None => bind_unix(path)?,
                };
                let app = paths(state.clone());
                doors.push(Door {
                    place: Place::AdminUnix { path: path.clone() },
                    socket: listener.as_fd().try_clone_to_owned()?,
                    task: tokio::spawn(async move { axum::serve(listener, app).await }).abort_handle(),
                });
            }
        }
    }
    Ok(Doors(doors))
}

fn bind_unix(path: &Path) -> Result<UnixListener> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
    }
    // A socket file of an earlier process is in the way of bind(2); a live one keeps its connections.
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path).with_context(|| format!("admin on unix:{}", path.display()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}
