//! splice(2): bytes from a socket to a socket through a pipe, without a copy into this process.

use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// A pipe to splice through. What was put in and not taken out is counted, so a pipe is known to be empty.
#[derive(Debug)]
pub struct Pipe {
    reader: PipeReader,
    writer: PipeWriter,
    held: usize,
}

impl Pipe {
    /// `bytes`: what it should hold; the kernel may grant less to a user without privileges
    /// (`/proc/sys/fs/pipe-max-size`, `pipe-user-pages-soft`).
    pub fn new(bytes: usize) -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        let wanted = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
        // SAFETY: the descriptor is open as long as `writer` lives; F_SETPIPE_SZ takes an int and touches no memory of
        // ours. If it fails the pipe keeps its default size, which works too.
        unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETPIPE_SZ, wanted) };
        Ok(Self {
            reader,
            writer,
            held: 0,
        })
    }

    /// Bytes put in and not yet taken out.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Moves up to `bytes` from a non-blocking socket into the pipe. 0 is the end of the stream. `WouldBlock` means an
    /// empty socket only if the pipe was empty.
    pub fn fill(&mut self, from: BorrowedFd<'_>, bytes: usize) -> io::Result<usize> {
        let n = splice(from, self.writer.as_fd(), bytes)?;
        self.held += n;
        Ok(n)
    }

    /// Moves what the pipe holds into a non-blocking socket, as far as it takes it.
    pub fn drain(&mut self, to: BorrowedFd<'_>) -> io::Result<usize> {
        let n = splice(self.reader.as_fd(), to, self.held)?;
        self.held = self.held.saturating_sub(n);
        Ok(n)
    }
}

fn splice(from: BorrowedFd<'_>, to: BorrowedFd<'_>, bytes: usize) -> io::Result<usize> {
    let flags = libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK;
    // SAFETY: both descriptors are borrowed, so open; the offsets are null, which means "no offset" and is what pipes
    // and sockets need; splice reads and writes no memory of this process.
    let n = unsafe {
        libc::splice(
            from.as_raw_fd(),
            std::ptr::null_mut(),
            to.as_raw_fd(),
            std::ptr::null_mut(),
            bytes,
            flags,
        )
    };
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{ErrorKind, Read, Write};
    use std::net::{TcpListener, TcpStream};

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (one, listener.accept().unwrap().0)
    }

    #[test]
    fn bytes_and_the_end_pass_through() {
        let ((mut client, from), (to, mut server)) = (pair(), pair());
        from.set_nonblocking(true).unwrap();
        let mut pipe = Pipe::new(65_536).unwrap();
        assert_eq!(
            pipe.fill(from.as_fd(), 65_536).unwrap_err().kind(),
            ErrorKind::WouldBlock
        );
        client.write_all(b"hello").unwrap();
        while pipe.held() == 0 {
            let _ = pipe.fill(from.as_fd(), 65_536);
        }
        assert_eq!(pipe.held(), 5);
        assert_eq!(pipe.drain(to.as_fd()).unwrap(), 5);
        assert_eq!(pipe.held(), 0);
        let mut got = [0; 5];
        server.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"hello");
        drop(client);
        from.set_nonblocking(false).unwrap();
        assert_eq!(pipe.fill(from.as_fd(), 65_536).unwrap(), 0);
    }
}
