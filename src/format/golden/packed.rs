//! Files as text: runs of 64-byte lines of one byte, and the lines that are not.
//!
//! `AT COUNT BYTE` stands for so many lines of this byte from offset AT on, `AT HEX` for one line.

use std::fmt::Write as _;

const LINE: usize = 64;

/// The text of these bytes, whole lines of 64.
pub(super) fn pack(bytes: &[u8]) -> String {
    let uniform = |line: &[u8]| line.iter().all(|byte| *byte == line[0]).then_some(line[0]);
    let lines: Vec<&[u8]> = bytes.chunks(LINE).collect();
    let (mut text, mut at) = (String::new(), 0);
    while at < lines.len() {
        let Some(byte) = uniform(lines[at]) else {
            write!(text, "{} ", at * LINE).unwrap();
            for byte in lines[at] {
                write!(text, "{byte:02x}").unwrap();
            }
            text.push('\n');
            at += 1;
            continue;
        };
        let run = lines[at..].iter().take_while(|line| uniform(line) == Some(byte)).count();
        writeln!(text, "{} {run} {byte:02x}", at * LINE).unwrap();
        at += run;
    }
    text
}

/// The bytes of such a text.
pub(super) fn unpack(text: &str) -> Vec<u8> {
    let byte = |hex: &str| u8::from_str_radix(hex, 16).unwrap();
    let mut bytes = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!(words[0].parse(), Ok(bytes.len()), "{line}");
        match words[1..] {
            [count, of] => {
                let run = count.parse::<usize>().unwrap() * LINE;
                bytes.resize(bytes.len() + run, byte(of));
            }
            [hex] => bytes.extend((0..LINE).map(|at| byte(&hex[2 * at..2 * at + 2]))),
            _ => panic!("{line}"),
        }
    }
    bytes
}
