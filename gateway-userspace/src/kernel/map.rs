//! BPF maps by descriptor, typed by their keys and values.

use super::bpf::{self, BatchAttr, Command, ElementAttr, call};
use gateway_common::abi::{Endpoint, Flow, FlowKey, Ring, Sources, Vip, VipKey};
use std::io;
use std::marker::PhantomData;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// A key or value that is plain bytes.
///
/// # Safety
/// `repr(C)` or primitive, without padding, and every bit pattern is a value.
pub unsafe trait Plain: Copy {}

// Of all: integers, or `repr(C)` structs of integers whose sizes `gateway_common::abi` asserts to be the sum of their
// fields.
// SAFETY: as above.
unsafe impl Plain for u32 {}
// SAFETY: as above.
unsafe impl Plain for i32 {}
// SAFETY: as above.
unsafe impl Plain for u64 {}
// SAFETY: as above.
unsafe impl Plain for VipKey {}
// SAFETY: as above.
unsafe impl Plain for Vip {}
// SAFETY: as above.
unsafe impl Plain for Endpoint {}
// SAFETY: as above.
unsafe impl Plain for FlowKey {}
// SAFETY: as above.
unsafe impl Plain for Flow {}
// SAFETY: as above.
unsafe impl Plain for Sources {}
// SAFETY: as above.
unsafe impl Plain for Ring {}

/// Entries of one batch; bounds the buffers of a walk to some hundred KiB.
pub const BATCH_MAX: usize = 4096;

/// A map of `K` to `V`. Clones share the map.
pub struct Map<K, V> {
    fd: OwnedFd,
    _types: PhantomData<fn(K) -> V>,
}

impl<K: Plain, V: Plain> Map<K, V> {
    /// Takes a descriptor over; its sizes must be those of `K` and `V`.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        let facts = bpf::map_facts(fd.as_fd())?;
        let sizes = (facts.key_size as usize, facts.value_size as usize);
        if sizes != (size_of::<K>(), size_of::<V>()) {
            let expected = (size_of::<K>(), size_of::<V>());
            return Err(io::Error::other(format!(
                "map has keys and values of {sizes:?} bytes, not {expected:?}"
            )));
        }
        Ok(Self {
            fd,
            _types: PhantomData,
        })
    }

    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            fd: self.fd.try_clone()?,
            _types: PhantomData,
        })
    }

    pub fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// The value of a key; `None` if there is none. Not for per-CPU maps.
    pub fn get(&self, key: &K) -> io::Result<Option<V>> {
        let mut value = MaybeUninit::<V>::uninit();
        // SAFETY: the buffer has the size of the map's value, as `new` checked.
        let found = unsafe { self.get_into(key, value.as_mut_ptr()) }?;
        // SAFETY: the kernel filled it, and every bit pattern is a value.
        Ok(found.then(|| unsafe { value.assume_init() }))
    }

    /// Like [`Map::get`] for values too large for the stack.
    pub fn get_boxed(&self, key: &K) -> io::Result<Option<Box<V>>> {
        let mut value = Box::<V>::new_uninit();
        // SAFETY: the buffer has the size of the map's value, as `new` checked.
        let found = unsafe { self.get_into(key, value.as_mut_ptr()) }?;
        // SAFETY: the kernel filled it, and every bit pattern is a value.
        Ok(found.then(|| unsafe { value.assume_init() }))
    }

    /// # Safety
    /// `value` points to as many bytes as the map's value has.
    unsafe fn get_into(&self, key: &K, value: *mut V) -> io::Result<bool> {
        match call(Command::MapLookup, &mut self.element(key, value as u64, 0)) {
            Ok(_) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Inserts or replaces.
    pub fn put(&self, key: &K, value: &V) -> io::Result<()> {
        call(
            Command::MapUpdate,
            &mut self.element(key, (&raw const *value) as u64, 0),
        )
        .map(drop)
    }

    /// Removes; true if it was there.
    pub fn remove(&self, key: &K) -> io::Result<bool> {
        match call(Command::MapDelete, &mut self.element(key, 0, 0)) {
            Ok(_) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Inserts or replaces all, in one command where the kernel has it.
    pub fn put_all(&self, entries: &[(K, V)]) -> io::Result<()> {
        for chunk in entries.chunks(BATCH_MAX) {
            let keys: Vec<K> = chunk.iter().map(|(key, _)| *key).collect();
            let values: Vec<V> = chunk.iter().map(|(_, value)| *value).collect();
            let mut attr = self.batch(keys.as_ptr() as u64, values.as_ptr() as u64, chunk.len());
            if call(Command::MapUpdateBatch, &mut attr).is_err() {
                // Not every kernel has batches for every map; an error of an element shows again here.
                for (key, value) in chunk {
                    self.put(key, value)?;
                }
            }
        }
        Ok(())
    }

    /// Removes those of `keys` that are there; returns how many.
    pub fn remove_all(&self, keys: &[K]) -> io::Result<usize> {
        let mut removed = 0;
        for key in keys {
            removed += usize::from(self.remove(key)?);
        }
        Ok(removed)
    }

    /// Every entry of a hash map, in batches. Entries that come or go meanwhile may be missed.
    pub fn walk(&self, mut each: impl FnMut(&K, &V)) -> io::Result<()> {
        let mut keys = Vec::<K>::with_capacity(BATCH_MAX);
        let mut values = Vec::<V>::with_capacity(BATCH_MAX);
        // A position in the table, opaque; the kernel asks for at least four bytes, a key's size for others.
        let mut position = vec![0u8; size_of::<K>().max(8)];
        let mut room = BATCH_MAX;
        let mut first = true;
        loop {
            let mut attr = self.batch(keys.as_mut_ptr() as u64, values.as_mut_ptr() as u64, room);
            attr.in_batch = if first { 0 } else { position.as_mut_ptr() as u64 };
            attr.out_batch = position.as_mut_ptr() as u64;
            let result = call(Command::MapLookupBatch, &mut attr);
            let end = match &result {
                Ok(_) => false,
                Err(error) => match error.raw_os_error() {
                    Some(libc::ENOENT) => true,
                    // One bucket holds more than there is room for.
                    Some(libc::ENOSPC) if room < (1 << 20) => {
                        room *= 4;
                        keys.reserve(room);
                        values.reserve(room);
                        continue;
                    }
                    _ => return result.map(drop),
                },
            };
            let count = attr.count as usize;
            // SAFETY: the kernel filled `count` elements, at most `room`, for which there is capacity, and every bit
            // pattern is a value.
            unsafe {
                keys.set_len(count);
                values.set_len(count);
            }
            for (key, value) in keys.iter().zip(&values) {
                each(key, value);
            }
            keys.clear();
            values.clear();
            if end {
                return Ok(());
            }
            first = false;
        }
    }

    fn element(&self, key: &K, value: u64, flags: u64) -> ElementAttr {
        ElementAttr {
            map: self.fd.as_raw_fd() as u32,
            pad: 0,
            key: (&raw const *key) as u64,
            value,
            flags,
        }
    }

    fn batch(&self, keys: u64, values: u64, count: usize) -> BatchAttr {
        BatchAttr {
            in_batch: 0,
            out_batch: 0,
            keys,
            values,
            count: count as u32,
            map: self.fd.as_raw_fd() as u32,
            element_flags: 0,
            flags: 0,
        }
    }
}

/// A per-CPU array of `u64`.
pub struct PerCpu {
    fd: OwnedFd,
    cpus: usize,
}

impl PerCpu {
    /// `cpus`: possible CPUs, which is what the kernel copies out for.
    pub fn new(fd: OwnedFd, cpus: usize) -> Self {
        Self { fd, cpus }
    }

    /// Sums over the CPUs of `count` cells from `first`.
    pub fn sums(&self, first: u32, count: u32) -> io::Result<Vec<u64>> {
        let mut cells = vec![0u64; self.cpus];
        let mut sums = Vec::with_capacity(count as usize);
        for index in first..first + count {
            let mut attr = ElementAttr {
                map: self.fd.as_raw_fd() as u32,
                pad: 0,
                key: (&raw const index) as u64,
                value: cells.as_mut_ptr() as u64,
                flags: 0,
            };
            call(Command::MapLookup, &mut attr)?;
            sums.push(cells.iter().sum());
        }
        Ok(sums)
    }
}

/// Possible CPUs (`/sys/devices/system/cpu/possible`): what per-CPU maps are sized by.
pub fn possible_cpus() -> io::Result<usize> {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/possible")?;
    let wrong = || io::Error::other(format!("possible CPUs: `{}`", text.trim()));
    let mut count = 0usize;
    for range in text.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let bounds: (usize, usize) = (first.parse().map_err(|_| wrong())?, last.parse().map_err(|_| wrong())?);
        count += (bounds.1 + 1).checked_sub(bounds.0).ok_or_else(wrong)?;
    }
    Ok(count)
}
