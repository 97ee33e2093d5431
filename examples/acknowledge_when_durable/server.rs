//! The server: a thread that reads and one that answers for each connection, and one thread that
//! owns the log.
//!
//! While that thread waits for a drain, messages of all connections gather in its queue; the
//! next drain covers all of them. So the load sets the size of the group, and no timer does.
//!
//! On the wire, little-endian: a client sends its identity (8 bytes) once, then for each message
//! its length (4), its number (8, rising), and its bytes. The server answers with numbers
//! (8 bytes): everything up to this one is durable.

use std::error::Error;
use std::io::{self, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};

use super::log::{Log, MESSAGE_MAX};

/// Messages in the queue, all connections together; a full queue makes the readers wait, and
/// TCP the clients.
const QUEUE_MAX: usize = 1024;
/// Messages to one drain, at most: bounds how long the first of them waits.
const GROUP_MAX: usize = 1024;
/// Acknowledgements that a client leaves unread before it loses its connection. A slow client
/// must not hold up the commit of all others.
const UNREAD_MAX: usize = 4096;

/// A message that has arrived.
struct Arrival {
    client: u64,
    number: u64,
    message: Vec<u8>,
    from: Arc<Connection>,
}

/// What it takes to answer a client.
struct Connection {
    stream: TcpStream,
    answers: Sender<u64>,
}

impl Connection {
    /// Never waits: a client that does not read its answers loses its connection.
    fn answer(&self, number: u64) {
        if let Err(TrySendError::Full(_)) = self.answers.try_send(number) {
            self.close();
        }
    }

    fn close(&self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// Serves until it is killed or the log fails.
pub fn run(path: &Path, address: &str, too_early: bool) -> Result<(), Box<dyn Error>> {
    let log = Log::open(path)?;
    let listener = TcpListener::bind(address)?;
    println!("{} records; {}", log.len(), log.promise());
    println!("listening on {}", listener.local_addr()?);
    let (arrivals, queue) = bounded(QUEUE_MAX);
    thread::spawn(move || {
        let Err(error) = commit_all(log, &queue, too_early) else { return };
        // Nobody is told anything any more: what was not acknowledged may be lost or not, and
        // only a new process that recovers from the log knows.
        eprintln!("the log failed, nothing more is acknowledged: {error}");
        std::process::exit(1);
    });
    for stream in listener.incoming() {
        let (stream, arrivals) = (stream?, arrivals.clone());
        thread::spawn(move || {
            // A connection that breaks concerns nobody else.
            let _ = converse(stream, &arrivals, too_early);
        });
    }
    Ok(())
}

/// The only thread that touches the log: append all, drain once, answer all.
fn commit_all(mut log: Log, queue: &Receiver<Arrival>, too_early: bool) -> daxmap::Result<()> {
    let (mut messages, mut drains, mut said) = (0_u64, 0_u64, Instant::now());
    while let Ok(first) = queue.recv() {
        let mut group = vec![first];
        group.extend(queue.try_iter().take(GROUP_MAX - 1));
        for arrival in &group {
            log.append(arrival.client, arrival.number, &arrival.message)?;
        }
        log.commit()?;
        messages += group.len() as u64;
        drains += 1;
        for arrival in group.into_iter().filter(|_| !too_early) {
            arrival.from.answer(arrival.number);
        }
        if said.elapsed() > Duration::from_secs(1) {
            println!("{messages} messages, {drains} drains");
            (messages, drains, said) = (0, 0, Instant::now());
        }
    }
    Ok(())
}

/// Hands every message of a connection on, until it breaks.
fn converse(stream: TcpStream, arrivals: &Sender<Arrival>, too_early: bool) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (answers, unsent) = bounded(UNREAD_MAX);
    let connection = Arc::new(Connection { stream, answers });
    let mut reader = BufReader::new(connection.stream.try_clone()?);
    let writer = connection.stream.try_clone()?;
    thread::spawn(move || {
        let _ = write_answers(&writer, &unsent);
        let _ = writer.shutdown(Shutdown::Both);
    });
    let result = receive(&mut reader, &connection, arrivals, too_early);
    connection.close();
    result
}

fn receive(
    reader: &mut impl Read,
    connection: &Arc<Connection>,
    arrivals: &Sender<Arrival>,
    too_early: bool,
) -> io::Result<()> {
    let client = read_u64(reader)?;
    loop {
        let mut length = [0; 4];
        reader.read_exact(&mut length)?;
        let length = u32::from_le_bytes(length) as usize;
        if length == 0 || length > MESSAGE_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let number = read_u64(reader)?;
        let mut message = vec![0; length];
        reader.read_exact(&mut message)?;
        if too_early {
            connection.answer(number);
        }
        let arrival = Arrival { client, number, message, from: Arc::clone(connection) };
        arrivals.send(arrival).map_err(|_| io::ErrorKind::BrokenPipe)?;
    }
}

/// Writes the newest number whenever there is one: it speaks for those before it.
fn write_answers(mut stream: &TcpStream, unsent: &Receiver<u64>) -> io::Result<()> {
    while let Ok(number) = unsent.recv() {
        let newest = unsent.try_iter().last().unwrap_or(number);
        stream.write_all(&newest.to_le_bytes())?;
    }
    Ok(())
}

fn read_u64(reader: &mut impl Read) -> io::Result<u64> {
    let mut word = [0; 8];
    reader.read_exact(&mut word)?;
    Ok(u64::from_le_bytes(word))
}
