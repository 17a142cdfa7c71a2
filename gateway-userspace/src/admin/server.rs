//! The listeners of the admin and its table of paths.

use super::state::AdminState;
use super::{api, envoy, guard};
use crate::settings::AdminAddr;
use anyhow::{Context, Result};
use axum::routing::get;
use axum::{Router, middleware};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use tokio::net::{TcpListener, UnixListener};

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

/// Binds every address first, so that a bad one is an error at start, then serves them until the runtime ends.
pub async fn start(addresses: &[AdminAddr], state: Arc<AdminState>) -> Result<()> {
    for address in addresses {
        match address {
            AdminAddr::None => {}
            AdminAddr::Tcp(addr) => {
                let bound = TcpListener::bind(addr).await;
                let listener =
                    bound.with_context(|| format!("admin on {addr}: choose another with --admin HOST:PORT"))?;
                let app = paths(state.clone()).layer(middleware::from_fn(guard::browser));
                tokio::spawn(async move { axum::serve(listener, app).await });
            }
            AdminAddr::Unix(path) => {
                if let Some(parent) = path.parent() {
                    std::fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
                }
                // A socket file of an earlier process is in the way of bind(2); a live one keeps its connections.
                let _ = std::fs::remove_file(path);
                let listener = UnixListener::bind(path).with_context(|| format!("admin on unix:{}", path.display()))?;
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
                let app = paths(state.clone());
                tokio::spawn(async move { axum::serve(listener, app).await });
            }
        }
    }
    Ok(())
}
