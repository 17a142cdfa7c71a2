//! From files to `Ir`: read, parse, keep what was good of what is broken, compile.

use super::told;
use crate::source::file::{FILE_BYTES_MAX, FileSource, Reading, Watch};
use crate::source::kube::Batch;
use crate::source::names::Names;
use crate::worker::TlsProblem;
use anyhow::Result;
use gateway_compiler::diagnostic::Severity;
use gateway_compiler::generated::GatewayService;
use gateway_compiler::objects::{ObjectId, Objects, Source};
use gateway_compiler::status::ObjectStatus;
use gateway_compiler::{Compiled, Compiler, Settings, compile, parse};
use gateway_core::ir::Ir;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

/// Reasons that [`Configuration::whole`] gives.
const PROBLEMS_TOLD_MAX: usize = 5;

/// The configuration of a run: where it comes from, and what it came to last.
pub struct Configuration {
    source: FileSource,
    settings: Settings,
    /// As read last; the same again is no change.
    reading: Option<Reading>,
    objects: Objects,
    compiler: Compiler,
    /// Without its `Ir` and its statuses, which are handed on.
    compiled: Compiled,
    statuses: Arc<Vec<Arc<ObjectStatus>>>,
    /// Files that could not be read.
    unread: Vec<String>,
    /// A cluster's objects are still missing: nothing is compiled.
    waiting: bool,
    /// Who resolves the host names that are endpoints; `None`: they have no addresses.
    names: Option<Names>,
    /// Something was compiled.
    begun: bool,
}

impl Configuration {
    pub fn new(source: FileSource, settings: Settings) -> Self {
        Self {
            source,
            settings,
            reading: None,
            objects: Objects::default(),
            compiler: Compiler::default(),
            compiled: Compiled::default(),
            statuses: Arc::default(),
            unread: Vec::new(),
            waiting: false,
            names: None,
            begun: false,
        }
    }

    /// From now on host names that are endpoints have addresses.
    pub fn resolve_by(&mut self, names: Names) {
        self.names = Some(names);
    }

    /// Compiles with the addresses that host names have now; `None` while nothing is compiled at all.
    pub fn resolved(&mut self) -> Option<Arc<Ir>> {
        (!self.waiting && self.reading.is_some()).then(|| self.compile())
    }

    /// Nothing is compiled before [`Configuration::take_in`] brought the objects of a cluster.
    pub fn wait_for_cluster(&mut self) {
        self.waiting = true;
    }

    /// Reads everything again; `None` when it reads as before. An object that became broken keeps its last good
    /// version; so do the objects of a file that cannot be read at all. Certificates on disk count as changed always:
    /// they are few, and compiling the same twice has no effect.
    pub fn load(&mut self) -> Option<Arc<Ir>> {
        let reading = self.source.read();
        if self.reading.as_ref() == Some(&reading) && self.objects.files_wanted().is_empty() {
            return None;
        }
        self.reading = Some(reading.clone());
        let (next, unread) = objects_of(reading);
        let previous = std::mem::take(&mut self.objects);
        self.objects = Objects::update(&previous, next);
        self.objects.carry_cluster(previous);
        self.unread = unread;
        (!self.waiting).then(|| self.compile())
    }

    /// Whether a cluster's objects are still missing.
    pub fn waits(&self) -> bool {
        self.waiting
    }

    /// Takes changes of a cluster; the first are the whole of it.
    pub fn take_in(&mut self, batch: Batch) -> Arc<Ir> {
        self.receive(batch);
        self.waiting = false;
        self.compile()
    }

    /// Takes changes of a cluster without compiling them yet.
    pub fn receive(&mut self, batch: Batch) {
        self.settings.api_version = batch.api_version;
        let changes = batch.changes.into_iter();
        changes.for_each(|change| self.objects.apply(change));
    }

    fn compile(&mut self) -> Arc<Ir> {
        if let Some(names) = &self.names {
            names.want(self.objects.names_wanted());
            if !std::mem::replace(&mut self.begun, true) {
                names.settle();
            }
            self.objects.resolve(names.known());
        }
        self.compiled = self.compiler.compile(&self.objects, &self.settings);
        self.statuses = Arc::new(std::mem::take(&mut self.compiled.statuses));
        Arc::new(std::mem::take(&mut self.compiled.ir))
    }

    /// Whether everything can be read, without taking it into use. What is broken keeps its last good version in a process
    /// that runs; one that starts has none, so a successor must not take over with it.
    pub fn whole(&self) -> Result<(), String> {
        let (objects, mut wrong) = objects_of(self.source.read());
        // Of the files as they are now, and of the cluster as far as it was received.
        let broken = objects.broken().chain(self.objects.broken());
        wrong.extend(broken.map(|object| format!("{object} is broken")));
        let compiled = compile(&objects, &self.settings);
        let nameless = compiled.diagnostics.iter();
        let nameless = nameless.filter(|finding| finding.severity == Severity::Error && finding.object.is_none());
        wrong.extend(nameless.map(ToString::to_string));
        if wrong.is_empty() {
            return Ok(());
        }
        wrong.truncate(PROBLEMS_TOLD_MAX);
        Err(format!(
            "the configuration is not whole, and the process that runs may serve better versions of what is broken: {} \
             (`sluice check` shows all)",
            wrong.join("; ")
        ))
    }

    /// What is wrong, one line each.
    pub fn problems(&self) -> Vec<String> {
        let diagnostics = self.compiled.diagnostics.iter().map(ToString::to_string);
        self.unread.iter().cloned().chain(diagnostics).collect()
    }

    /// What the workers found wrong with what TLS needs, one line each.
    pub fn told(&self, problems: &[TlsProblem]) -> Vec<String> {
        problems.iter().map(|one| told::line(&self.objects, one)).collect()
    }

    /// What every object is told, in order of the objects.
    pub fn verdicts(&self) -> Arc<Vec<Arc<ObjectStatus>>> {
        self.statuses.clone()
    }

    /// What should stand in the cluster for each Gateway.
    pub fn generated(&self) -> Arc<Vec<GatewayService>> {
        Arc::new(self.compiled.generated.clone())
    }

    /// Objects whose newest version could not be used.
    pub fn broken(&self) -> BTreeSet<ObjectId> {
        self.objects.broken().cloned().collect()
    }

    /// Files beside the configuration that its objects name: certificates on disk.
    pub fn named_files(&self) -> Vec<PathBuf> {
        self.objects.files_wanted().into_iter().map(PathBuf::from).collect()
    }

    /// Calls `changed` when a file of the configuration, or one of `named`, changed.
    pub fn watch(&self, named: &[PathBuf], changed: impl Fn() + Send + 'static) -> Result<Watch> {
        self.source.watch(named, changed)
    }
}

/// Parses the texts and supplies the files that objects name.
pub fn objects_of(reading: Reading) -> (Objects, Vec<String>) {
    let sources: Vec<Source> = reading
        .texts
        .into_iter()
        .map(|text| Source::new(text.name, text.text))
        .collect();
    let mut objects = parse(&sources);
    for name in &reading.lost {
        objects.lose(name);
    }
    for path in objects.files_wanted() {
        let contents = std::fs::metadata(&path).and_then(|facts| {
            if facts.len() > FILE_BYTES_MAX {
                return Err(std::io::Error::other(format!("larger than {FILE_BYTES_MAX} bytes")));
            }
            std::fs::read(&path)
        });
        objects.supply(path, contents.map_err(|error| error.to_string()));
    }
    (objects, reading.problems)
}
