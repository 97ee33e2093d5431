//! The clients: each sends messages, keeps some of them under way, and remembers what was
//! acknowledged.

use std::collections::VecDeque;
use std::error::Error;
use std::io::{self, BufWriter, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use super::Arguments;

/// No answer for so long is an error: a server that hangs must not hang the clients.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a client knows when its connection is over.
pub struct Client {
    pub identity: u64,
    /// Every message up to this number is acknowledged.
    pub acknowledged: u64,
    pub sent: u64,
    times_us: Vec<u64>,
}

/// The message that a client sends under this number; whoever knows both can check it.
pub fn message(identity: u64, number: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(identity << 32 ^ number);
    let length = random.usize(16..512);
    (0..length).map(|_| random.u8(..)).collect()
}

/// Runs all clients until the server is gone or the time is over.
pub fn run(address: SocketAddr, first: u64, arguments: &Arguments, time: Duration) -> Vec<Client> {
    let window = arguments.window;
    let clients = (first..first + u64::from(arguments.clients))
        .map(|identity| thread::spawn(move || client(address, identity, window, time)));
    let clients: Vec<_> = clients.collect();
    clients.into_iter().filter_map(|client| client.join().ok()).collect()
}

fn client(address: SocketAddr, identity: u64, window: u64, time: Duration) -> Client {
    let mut client = Client { identity, acknowledged: 0, sent: 0, times_us: Vec::new() };
    // Ends with an error when the server is killed, which is what it is there for.
    let _ = converse(address, window, time, &mut client);
    client
}

fn converse(
    address: SocketAddr,
    window: u64,
    time: Duration,
    client: &mut Client,
) -> io::Result<()> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut writer = BufWriter::new(&stream);
    writer.write_all(&client.identity.to_le_bytes())?;
    let began = Instant::now();
    // When each message that is under way was sent.
    let mut under_way = VecDeque::new();
    loop {
        let go_on = began.elapsed() < time;
        while go_on && client.sent - client.acknowledged < window {
            let number = client.sent + 1;
            let message = message(client.identity, number);
            // Counted first: what was sent in part may arrive, never more than that.
            client.sent = number;
            writer.write_all(&(message.len() as u32).to_le_bytes())?;
            writer.write_all(&number.to_le_bytes())?;
            writer.write_all(&message)?;
            under_way.push_back(Instant::now());
        }
        writer.flush()?;
        if client.acknowledged == client.sent {
            return Ok(());
        }
        let mut number = [0; 8];
        (&stream).read_exact(&mut number)?;
        let number = u64::from_le_bytes(number);
        if number <= client.acknowledged || number > client.sent {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let newly = number - client.acknowledged;
        client.acknowledged = number;
        let times = under_way.drain(..newly as usize);
        client.times_us.extend(times.map(|sent| sent.elapsed().as_micros() as u64));
    }
}

/// Loads a server and says what it did.
#[allow(clippy::cast_precision_loss)] // a rate for a reader
pub fn measure(address: SocketAddr, arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let began = Instant::now();
    let first = fastrand::u64(1 << 16..1 << 31) << 16;
    let clients = run(address, first, arguments, arguments.seconds);
    let seconds = began.elapsed().as_secs_f64();
    let acknowledged: u64 = clients.iter().map(|client| client.acknowledged).sum();
    let mut times: Vec<u64> = clients.into_iter().flat_map(|client| client.times_us).collect();
    times.sort_unstable();
    let at = |share: usize| times.get((times.len() * share / 1000).min(times.len().max(1) - 1));
    let (Some(median), Some(late)) = (at(500), at(990)) else {
        return Err("nothing was acknowledged".into());
    };
    println!(
        "{} clients, {} under way each: {:.0} messages a second, acknowledged after {median} us \
         in the median, {late} us at the 99th percentile",
        arguments.clients,
        arguments.window,
        acknowledged as f64 / seconds,
    );
    Ok(())
}
