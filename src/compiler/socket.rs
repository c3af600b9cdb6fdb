//! A socket that keeps messages apart, with files beside them.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg, socketpair,
};

use super::wire::LONGEST;

/// Files that come with a message: at most.
const MOST_FILES: usize = 2;

/// What was received; empty when the other side is gone.
pub(super) struct Received {
    bytes: [u8; LONGEST],
    length: usize,
    #[cfg_attr(
        not(feature = "compiler"),
        allow(dead_code, reason = "the other side reads them")
    )]
    pub files: Vec<File>,
}

impl Received {
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// Both ends; neither is passed on to programs that this process starts, unless as a standard stream.
pub(super) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC;
    let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    Ok(pair)
}

/// Whether this is such an end.
#[cfg(feature = "compiler")]
pub(super) fn is_one(fd: impl AsFd) -> bool {
    rustix::net::sockopt::socket_type(fd).is_ok_and(|kind| kind == SocketType::SEQPACKET)
}

pub(super) fn send(socket: impl AsFd, bytes: &[u8], files: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FILES))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() && !control.push(SendAncillaryMessage::ScmRights(files)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    sendmsg(
        socket,
        &[IoSlice::new(bytes)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

/// Waits for a message.
///
/// # Errors
/// The system's; and `InvalidData` for a message that is longer than any, or has more files.
pub(super) fn receive(socket: impl AsFd) -> io::Result<Received> {
    let mut bytes = [0; LONGEST];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FILES))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let (received, files) = loop {
        let mut into = [IoSliceMut::new(&mut bytes)];
        let received = recvmsg(&socket, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC);
        let files: Vec<File> = control.drain().flat_map(files_of).collect();
        match received {
            Err(rustix::io::Errno::INTR) => {}
            other => break (other?, files),
        }
    };
    let cut = ReturnFlags::TRUNC.union(ReturnFlags::CTRUNC);
    if received.flags.intersects(cut) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(Received {
        bytes,
        length: received.bytes,
        files,
    })
}

fn files_of(message: RecvAncillaryMessage<'_>) -> Vec<File> {
    match message {
        RecvAncillaryMessage::ScmRights(files) => files.map(File::from).collect(),
        _ => Vec::new(),
    }
}
