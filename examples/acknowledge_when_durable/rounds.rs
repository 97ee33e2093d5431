//! Kills the server under load, again and again, and looks for every acknowledged message.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use super::load::{self, Client};
use super::{Arguments, log};

/// The kill falls between these times after the load has begun, in milliseconds.
const DELAY_MS: std::ops::Range<u64> = 50..800;
/// The clients stop by themselves after this, if the kill did not reach the server.
const LOAD_MAX: Duration = Duration::from_secs(60);

/// True if nothing was lost.
pub fn run(directory: &Path, arguments: &Arguments) -> Result<bool, Box<dyn Error>> {
    std::fs::create_dir_all(directory)?;
    let path = directory.join("log");
    if path.exists() {
        return Err(format!("{} exists: rounds wants a new log", path.display()).into());
    }
    let mut clients: Vec<Client> = Vec::new();
    let mut failures = Vec::new();
    for round in 1..=arguments.rounds {
        let server = Server::start(&path, arguments.too_early)?;
        let (address, first) = (server.address, u64::from(round) << 32);
        let delay = Duration::from_millis(fastrand::u64(DELAY_MS));
        let loaded: Result<Vec<Client>, Box<dyn Error>> = thread::scope(|scope| {
            let loading = scope.spawn(|| load::run(address, first, arguments, LOAD_MAX));
            thread::sleep(delay);
            server.kill()?;
            loading.join().map_err(|_| "the clients panicked".into())
        });
        let loaded = loaded?;
        let acknowledged: u64 = loaded.iter().map(|client| client.acknowledged).sum();
        let sent: u64 = loaded.iter().map(|client| client.sent).sum();
        clients.extend(loaded);
        let found = verify(&path, &clients, &mut failures)?;
        println!(
            "round {round}: killed after {delay:?}; {acknowledged} of {sent} messages \
             acknowledged; {found} in the log from all rounds; {} lost or wrong so far",
            failures.len()
        );
    }
    for failure in failures.iter().take(3) {
        println!("  for example: {failure}");
    }
    let acknowledged: u64 = clients.iter().map(|client| client.acknowledged).sum();
    println!(
        "{} kills, {acknowledged} acknowledged messages, {} lost or wrong",
        arguments.rounds,
        failures.len()
    );
    Ok(failures.is_empty() && acknowledged > 0)
}

/// A server that runs; dropping it kills it.
struct Server {
    process: Child,
    address: SocketAddr,
}

impl Server {
    fn start(path: &Path, too_early: bool) -> Result<Self, Box<dyn Error>> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("serve").arg(path).args(["127.0.0.1:0", "--end-with-parent"]);
        if too_early {
            command.arg("--too-early");
        }
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let mut says = BufReader::new(process.stdout.take().ok_or("no pipe")?);
        let mut line = String::new();
        while says.read_line(&mut line)? > 0 {
            if let Some(address) = line.trim_end().strip_prefix("listening on ") {
                let address = address.parse()?;
                // The rest is not of interest, but has to go somewhere.
                thread::spawn(move || says.read_to_string(&mut String::new()));
                return Ok(Self { process, address });
            }
            line.clear();
        }
        Err(format!("the server did not start: {}", process.wait()?).into())
    }

    /// The server must not have ended by itself.
    fn kill(mut self) -> Result<(), Box<dyn Error>> {
        self.process.kill()?;
        let status = self.process.wait()?;
        match status.code() {
            Some(_) => Err(format!("the server ended by itself: {status}").into()),
            None => Ok(()),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Every client's messages must be there from the first to the last acknowledged one, each once,
/// in order, with its own bytes; and nothing that was not sent.
fn verify(
    path: &Path,
    clients: &[Client],
    failures: &mut Vec<String>,
) -> Result<u64, Box<dyn Error>> {
    failures.clear();
    let mut newest: BTreeMap<u64, u64> = BTreeMap::new();
    let mut found = 0;
    log::read_file(path, |record| {
        found += 1;
        let expected = newest.entry(record.client).or_default();
        *expected += 1;
        let (client, number) = (record.client, record.number);
        if number != *expected {
            failures.push(format!("client {client}: {number} where {expected} should be"));
            *expected = number;
        } else if record.message != load::message(client, number) {
            failures.push(format!("client {client}: message {number} has other bytes"));
        }
    })?;
    for Client { identity, acknowledged, sent, .. } in clients {
        let last = newest.remove(identity).unwrap_or(0);
        if last < *acknowledged {
            failures.push(format!("client {identity}: {acknowledged} acknowledged, {last} there"));
        }
        if last > *sent {
            failures.push(format!("client {identity}: {sent} sent, {last} there"));
        }
    }
    failures.extend(newest.keys().map(|client| format!("nobody was client {client}")));
    Ok(found)
}
