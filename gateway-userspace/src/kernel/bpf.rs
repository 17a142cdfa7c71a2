//! The `bpf(2)` commands that the aya crate does not offer: batches, links by descriptor, link facts.
//!
//! Every command takes its own part of `union bpf_attr` (`linux/bpf.h`); the kernel reads the bytes it is given and
//! takes the rest as zero.

use std::ffi::CString;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Commands (`enum bpf_cmd`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i32)]
pub enum Command {
    MapCreate = 0,
    MapLookup = 1,
    MapUpdate = 2,
    MapDelete = 3,
    ObjPin = 6,
    ObjGet = 7,
    MapGetFdById = 14,
    ObjGetInfo = 15,
    MapLookupBatch = 24,
    MapUpdateBatch = 26,
    MapDeleteBatch = 27,
    LinkCreate = 28,
    LinkUpdate = 29,
    LinkDetach = 34,
}

/// Where a link attaches (`enum bpf_attach_type`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum AttachType {
    SkLookup = 36,
    Xdp = 37,
    TcxIngress = 46,
}

/// `BPF_MAP_TYPE_ARRAY`.
const MAP_TYPE_ARRAY: u32 = 2;

/// A part of `union bpf_attr`.
///
/// # Safety
/// `repr(C)`, without padding bytes, laid out as `linux/bpf.h` says for the command it is given to, and every pointer
/// in it valid for what that command does with it.
pub(super) unsafe trait Attr: Sized {}

/// Issues a command; the result is a descriptor, an id or zero.
pub(super) fn call<A: Attr>(command: Command, attr: &mut A) -> io::Result<i32> {
    // SAFETY: `attr` is live and exclusively borrowed, its size is passed, and `Attr` promises the rest.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command as libc::c_long, &raw mut *attr, size_of::<A>()) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result as i32)
    }
}

fn owned(result: io::Result<i32>) -> io::Result<OwnedFd> {
    // SAFETY: the command returned a new descriptor that nobody else knows.
    result.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}

fn path_text(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

#[repr(C)]
pub(super) struct ElementAttr {
    pub map: u32,
    pub pad: u32,
    pub key: u64,
    pub value: u64,
    pub flags: u64,
}
// SAFETY: the element part of `bpf_attr`; callers in `map.rs` pass pointers to values of the map's sizes.
unsafe impl Attr for ElementAttr {}

#[repr(C)]
pub(super) struct BatchAttr {
    pub in_batch: u64,
    pub out_batch: u64,
    pub keys: u64,
    pub values: u64,
    pub count: u32,
    pub map: u32,
    pub element_flags: u64,
    pub flags: u64,
}
// SAFETY: the batch part of `bpf_attr`; callers in `map.rs` pass buffers of `count` elements.
unsafe impl Attr for BatchAttr {}

#[repr(C)]
struct PathAttr {
    path: u64,
    fd: u32,
    flags: u32,
}
// SAFETY: the pin part of `bpf_attr`; the path is a live C string at every call below.
unsafe impl Attr for PathAttr {}

#[repr(C)]
struct IdAttr {
    id: u32,
    next: u32,
    flags: u32,
}
// SAFETY: the id part of `bpf_attr`, plain numbers.
unsafe impl Attr for IdAttr {}

#[repr(C)]
struct InfoAttr {
    fd: u32,
    len: u32,
    info: u64,
}
// SAFETY: the info part of `bpf_attr`; the buffer is live and `len` is its length.
unsafe impl Attr for InfoAttr {}

#[repr(C)]
struct LinkCreateAttr {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
}
// SAFETY: the link part of `bpf_attr`, plain numbers.
unsafe impl Attr for LinkCreateAttr {}

#[repr(C)]
struct LinkUpdateAttr {
    link: u32,
    program: u32,
    flags: u32,
    old_program: u32,
}
// SAFETY: the link part of `bpf_attr`, plain numbers.
unsafe impl Attr for LinkUpdateAttr {}

#[repr(C)]
struct LinkAttr {
    link: u32,
}
// SAFETY: the link part of `bpf_attr`, a plain number.
unsafe impl Attr for LinkAttr {}

#[repr(C)]
struct MapCreateAttr {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    entries_max: u32,
    flags: u32,
}
// SAFETY: the map part of `bpf_attr`, plain numbers.
unsafe impl Attr for MapCreateAttr {}

fn number(fd: BorrowedFd<'_>) -> u32 {
    // A live descriptor is never negative.
    fd.as_raw_fd() as u32
}

/// An array of `entries_max` values.
pub fn create_array(value_size: u32, entries_max: u32) -> io::Result<OwnedFd> {
    let mut attr = MapCreateAttr {
        map_type: MAP_TYPE_ARRAY,
        key_size: 4,
        value_size,
        entries_max,
        flags: 0,
    };
    owned(call(Command::MapCreate, &mut attr))
}

pub fn map_by_id(id: u32) -> io::Result<OwnedFd> {
    let mut attr = IdAttr { id, next: 0, flags: 0 };
    owned(call(Command::MapGetFdById, &mut attr))
}

/// Pins an object. The path must not exist and lie in a bpffs.
pub fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let text = path_text(path)?;
    let mut attr = PathAttr {
        path: text.as_ptr() as u64,
        fd: number(object),
        flags: 0,
    };
    call(Command::ObjPin, &mut attr).map(drop)
}

/// Opens a pinned object; `None` when nothing is pinned there.
pub fn pinned(path: &Path) -> io::Result<Option<OwnedFd>> {
    let text = path_text(path)?;
    let mut attr = PathAttr {
        path: text.as_ptr() as u64,
        fd: 0,
        flags: 0,
    };
    match owned(call(Command::ObjGet, &mut attr)) {
        Ok(fd) => Ok(Some(fd)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// What a link attaches to: an interface by index, or a network namespace by descriptor.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    Interface(u32),
    Namespace(BorrowedFd<'a>),
}

/// Attaches a program by a link, which lives as long as a descriptor or a pin of it.
pub fn link(program: BorrowedFd<'_>, target: Target<'_>, attach_type: AttachType, flags: u32) -> io::Result<OwnedFd> {
    let target = match target {
        Target::Interface(index) => index,
        Target::Namespace(fd) => number(fd),
    };
    let mut attr = LinkCreateAttr {
        program: number(program),
        target,
        attach_type: attach_type as u32,
        flags,
    };
    owned(call(Command::LinkCreate, &mut attr))
}

/// Replaces the program of a link; no packet sees a gap.
pub fn replace_program(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = LinkUpdateAttr {
        link: number(link),
        program: number(program),
        flags: 0,
        old_program: 0,
    };
    call(Command::LinkUpdate, &mut attr).map(drop)
}

/// Detaches a link at once, whoever still holds or pins it.
pub fn detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = LinkAttr { link: number(link) };
    call(Command::LinkDetach, &mut attr).map(drop)
}

/// What a link is attached to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Attached {
    Xdp {
        interface: u32,
    },
    Tcx {
        interface: u32,
    },
    /// Inode of the network namespace; 0 when it is gone.
    Namespace {
        inode: u32,
    },
    /// Some other kind of link, by its number.
    Other(u32),
}

/// Facts of a link: program id and what it is attached to.
pub fn link_facts(link: BorrowedFd<'_>) -> io::Result<(u32, Attached)> {
    // `struct bpf_link_info`: type, id, program id, padding, then a union at byte 16.
    let mut info = [0u32; 32];
    read_info(link, &mut info)?;
    const NETNS: u32 = 5;
    const XDP: u32 = 6;
    const TCX: u32 = 11;
    let attached = match info[0] {
        NETNS => Attached::Namespace { inode: info[4] },
        XDP => Attached::Xdp { interface: info[4] },
        TCX => Attached::Tcx { interface: info[4] },
        other => Attached::Other(other),
    };
    Ok((info[2], attached))
}

/// Id of a program.
pub fn program_id(program: BorrowedFd<'_>) -> io::Result<u32> {
    // `struct bpf_prog_info`: type, id, ...
    let mut info = [0u32; 32];
    read_info(program, &mut info)?;
    Ok(info[1])
}

/// Facts of a map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MapFacts {
    pub id: u32,
    pub map_type: u32,
    pub key_size: u32,
    pub value_size: u32,
    pub entries_max: u32,
}

pub fn map_facts(map: BorrowedFd<'_>) -> io::Result<MapFacts> {
    // `struct bpf_map_info`: type, id, key size, value size, most entries, ...
    let mut info = [0u32; 32];
    read_info(map, &mut info)?;
    Ok(MapFacts {
        id: info[1],
        map_type: info[0],
        key_size: info[2],
        value_size: info[3],
        entries_max: info[4],
    })
}

fn read_info(fd: BorrowedFd<'_>, info: &mut [u32; 32]) -> io::Result<()> {
    let mut attr = InfoAttr {
        fd: number(fd),
        len: size_of::<[u32; 32]>() as u32,
        info: info.as_mut_ptr() as u64,
    };
    call(Command::ObjGetInfo, &mut attr).map(drop)
}

/// The descriptor as batch updates of an array of maps want it.
pub fn raw(fd: &OwnedFd) -> RawFd {
    fd.as_raw_fd()
}
