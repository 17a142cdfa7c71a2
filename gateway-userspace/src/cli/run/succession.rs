//! Whether this run takes over from another process, and how it hands over itself.

use super::super::exit::{Code, Exit};
use super::RunArgs;
use crate::control::Message;
use crate::handover::giver::Giver;
use crate::handover::taker::{Inheritance, Taker};
use crate::handover::{self, Claim, Identity};
use crate::kernel::KernelStatus;
use crate::settings::Tunables;
use crate::sys::packets::Door;
use std::path::{Path, PathBuf};
use std::sync::mpsc::SyncSender;

/// The place of this run in the line of its gateway's processes.
pub(super) struct Succession {
    /// The door's file, where there is one.
    pub(super) path: Option<PathBuf>,
    door: Result<Door, String>,
    taker: Option<Taker>,
    /// Empty without a predecessor.
    pub(super) inheritance: Inheritance,
}

impl Succession {
    /// Finds out whether somebody runs. One who does not hand over is an error: two would be in each other's way.
    pub(super) fn claim(args: &RunArgs) -> Result<Self, Exit> {
        let identity = Identity {
            state_dir: &args.state_dir,
            pin_dir: &args.pin_dir,
            admin: &args.admin,
            files: &args.files,
        };
        let mut this = Self {
            path: None,
            door: Err(String::new()),
            taker: None,
            inheritance: Inheritance::default(),
        };
        if args.files.iter().any(|file| file.as_os_str() == "-") {
            this.door = Err("the configuration came from standard input, which cannot be read again".into());
            return Ok(this);
        }
        let path = match identity.door() {
            Ok(path) => path,
            Err(error) => {
                this.door = Err(error.to_string());
                return Ok(this);
            }
        };
        match handover::claim(&path) {
            Claim::First(door) => (this.path, this.door) = (Some(path), Ok(door)),
            Claim::Without(why) => this.door = Err(format!("{why} (--state-dir says where)")),
            Claim::Successor(line) => {
                let (taker, mut inheritance) = Taker::greet(line).map_err(|why| Exit::new(Code::Failed, why))?;
                this.door = inheritance.door.take().ok_or_else(|| "it was given no door".into());
                (this.path, this.taker, this.inheritance) = (Some(path), Some(taker), inheritance);
            }
        }
        Ok(this)
    }

    pub(super) fn takes_over(&self) -> bool {
        self.taker.is_some()
    }

    /// From here on no predecessor writes the kernel's maps.
    pub(super) fn yielded(&self) -> Result<(), Exit> {
        match &self.taker {
            Some(taker) => taker.ask_to_yield().map_err(|why| Exit::new(Code::Failed, why)),
            None => Ok(()),
        }
    }

    /// Connections come to a successor as they came before, or it does not succeed.
    pub(super) fn suits(&self, status: &KernelStatus) -> Result<(), Exit> {
        let before = &self.inheritance.datapath;
        if self.taker.is_none() || before == status.word() {
            return Ok(());
        }
        let (now, reasons) = (status.word(), status.reasons.join("; "));
        let text = format!("the datapath would change from {before} to {now} ({reasons}): stop the old process first");
        Err(Exit::new(Code::Failed, text))
    }

    /// This run ends before it serves.
    pub(super) fn failed(self, exit: &Exit) {
        match (self.taker, self.path) {
            (Some(taker), _) => taker.fail(&exit.to_string()),
            (None, Some(path)) => remove(&path),
            (None, None) => {}
        }
    }

    /// This run serves: a predecessor may go, and a successor may come.
    pub(super) fn into_giver(self, tunables: &Tunables, sender: SyncSender<Message>) -> Result<Giver, String> {
        if let Some(taker) = self.taker {
            taker.ready();
        }
        let door = self.door?;
        // An ended loop hands nothing over; who asked is told by the end of the process.
        let ask = move |ask| drop(sender.send(Message::HandOver(ask)));
        Giver::start(door, tunables.handover, ask).map_err(|error| error.to_string())
    }
}

fn remove(path: &Path) {
    let _ = std::fs::remove_file(path);
}
