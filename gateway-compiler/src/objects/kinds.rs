//! The source kinds as users write them: loose, close to the Kubernetes schema. Only the compiler sees them.
//!
//! Fields of the schema that change nothing here are named in [`super::known`]; any other field is reported.

mod core;
mod gateway;
mod route;
mod tls;

pub use core::*;
pub use gateway::*;
pub use route::*;
pub use tls::*;

use serde::Deserialize;
use std::collections::BTreeMap;

/// `metadata` of every kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    #[serde(default)]
    pub name: String,
    pub namespace: Option<String>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// Given by an API server; nobody outside the cluster knows it.
    #[serde(default)]
    pub uid: String,
    #[serde(default)]
    pub generation: i64,
    /// RFC 3339 in UTC, so it sorts as text; empty in files.
    #[serde(default)]
    pub creation_timestamp: String,
}
