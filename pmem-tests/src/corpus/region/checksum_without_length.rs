//! A checksum of the payload's room that leaves the length out: the length may be an old one.

use super::support::{FORGETFUL, bytes, ensure, explore, sum, word};
use super::{Bug, Form, Region};

/// Length in bytes, in a sector of its own; payload and checksum in another.
const LENGTH: u64 = 0;
const PAYLOAD: u64 = 1024;
const ROOM: usize = 48;

fn checksum(form: Form, len: u64, room: &[u8]) -> u64 {
    match form {
        Form::Buggy => sum(room),
        Form::Fixed => sum(&[&len.to_le_bytes(), room].concat()),
    }
}

pub(super) const BUG: Bug = Bug {
    name: "checksum_without_length",
    class: "checksum without length",
    story: "a message is replaced by a longer one; payload and checksum arrive, the length does not",
    modes: FORGETFUL,
    words: "bytes long",
    explore: |form, mode| {
        explore(
            mode,
            move |region, _| {
                for len in [16_u64, 40] {
                    let mut room = [0; ROOM];
                    room[..len as usize].fill(len as u8);
                    region.write(LENGTH, &len.to_le_bytes())?;
                    let sum = checksum(form, len, &room).to_le_bytes();
                    region.write(PAYLOAD, &[&room[..], &sum[..]].concat())?;
                    region.flush(LENGTH, 8)?;
                    region.flush(PAYLOAD, ROOM as u64 + 8)?;
                    region.drain()?;
                }
                Ok(())
            },
            move |region, _| {
                let len = word(&bytes::<8>(region, LENGTH)?, 0);
                let found = bytes::<{ ROOM + 8 }>(region, PAYLOAD)?;
                let (room, sum) = found.split_at(ROOM);
                if word(sum, 0) != checksum(form, len, room) {
                    return Ok(());
                }
                let real = u64::from(room[0]);
                ensure(len == real, || format!("accepted as {len} bytes, but it is {real} bytes long"))
            },
        )
    },
};
