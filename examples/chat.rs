//! cargo run --release --example chat -- [--addr 127.0.0.1:8000]
//!
//! A chat server: what one says, all hear. Join with `cargo run --release --example netcat`; the first line is your name.
//!
//! One goroutine, the broadcaster, owns the list of clients, and nobody else touches it: there is nothing to lock. It hears of who enters,
//! who leaves and what is said on three channels. Every client has two goroutines: one reads what the client says, the other writes what
//! the client is told, so that neither waits for the other.

mod common;

use std::{
    collections::BTreeMap,
    io::{self, BufRead, BufReader, Write},
    net::{Shutdown, SocketAddr},
    sync::Arc,
    time::Duration,
};

use oxigo::{
    Receiver, Sender, bounded, go,
    net::{TcpListener, TcpStream},
    select, unbuffered,
};

/// So many lines may wait for one client. Who is further behind misses some; the others do not wait.
const OUTBOX: usize = 64;
/// Who takes nothing for so long has gone.
const PATIENCE: Duration = Duration::from_secs(30);

type Line = Arc<str>;

struct Client {
    name: String,
    outbox: Sender<Line>,
}

/// What the goroutines of the clients hold of the broadcaster.
#[derive(Clone)]
struct Room {
    entering: Sender<(SocketAddr, Client)>,
    leaving: Sender<SocketAddr>,
    messages: Sender<String>,
}

fn tell(clients: &BTreeMap<SocketAddr, Client>, text: String) {
    let line: Line = text.into();
    for client in clients.values() {
        // Full: a slow one, who misses this line. Disconnected: one who has gone, and whose leaving we shall hear of.
        let _ = client.outbox.try_send(Arc::clone(&line));
    }
}

fn broadcast(entering: &Receiver<(SocketAddr, Client)>, leaving: &Receiver<SocketAddr>, messages: &Receiver<String>) {
    let mut clients = BTreeMap::new();
    loop {
        // Closed channels would mean that the server itself has ended.
        select! {
            recv(entering) -> newcomer => {
                let Ok((address, client)) = newcomer else { return };
                clients.insert(address, client);
                let newcomer: &Client = &clients[&address];
                let names: Vec<_> = clients.values().map(|client| client.name.as_str()).collect();
                let _ = newcomer.outbox.try_send(format!("here are: {}", names.join(", ")).into());
                let text = format!("{} has arrived", newcomer.name);
                tell(&clients, text);
            },
            recv(leaving) -> address => {
                let Ok(address) = address else { return };
                // Dropping the outbox closes it, which ends the client's writer.
                if let Some(client) = clients.remove(&address) {
                    tell(&clients, format!("{} has left", client.name));
                }
            },
            recv(messages) -> text => {
                let Ok(text) = text else { return };
                tell(&clients, text);
            },
        }
    }
}

/// Writes to one client what it is told, until its outbox is closed.
fn write_lines(mut connection: &TcpStream, outbox: &Receiver<Line>) -> io::Result<()> {
    for line in outbox {
        connection.write_all(format!("{line}\n").as_bytes())?;
    }
    Ok(())
}

fn handle(connection: TcpStream, address: SocketAddr, room: &Room) -> io::Result<()> {
    connection.set_write_timeout(Some(PATIENCE))?;
    let connection = Arc::new(connection);
    let (outbox, lines) = bounded::<Line>(OUTBOX);
    let _ = outbox.send("who are you?".into());
    go({
        let connection = Arc::clone(&connection);
        move || {
            let _ = write_lines(&connection, &lines);
            // Also when writing has failed: then the reader below has nothing to wait for either.
            let _ = connection.shutdown(Shutdown::Both);
        }
    });

    let mut said = BufReader::new(&*connection).lines();
    let Some(name) = said.next().transpose()? else { return Ok(()) };
    // The channels have no buffers: each of these returns when the broadcaster has taken it. So all hear them in this order.
    let _ = room.entering.send((address, Client { name: name.clone(), outbox }));
    for line in said {
        let Ok(line) = line else { break };
        let _ = room.messages.send(format!("{name}: {line}"));
    }
    let _ = room.leaving.send(address);
    Ok(())
}

#[oxigo::main]
fn main() -> io::Result<()> {
    let mut addr = "127.0.0.1:8000".to_owned();
    common::options("chat [--addr ADDRESS:PORT]", |name, value| {
        match name {
            "--addr" => addr = value.to_owned(),
            _ => return Err(format!("unknown option {name}")),
        }
        Ok(())
    });
    common::raise_descriptor_limit();

    let (entering, newcomers) = unbuffered();
    let (leaving, leavers) = unbuffered();
    let (messages, texts) = unbuffered();
    go(move || broadcast(&newcomers, &leavers, &texts));
    let room = Room { entering, leaving, messages };

    let listener = TcpListener::bind(&addr)?;
    println!("chat listens on {}", listener.local_addr()?);
    loop {
        match listener.accept() {
            Ok((connection, address)) => {
                let room = room.clone();
                go(move || {
                    if let Err(error) = handle(connection, address, &room) {
                        eprintln!("{address}: {error}");
                    }
                });
            }
            // A connection that was aborted, or a full descriptor table: the others go on.
            Err(error) => eprintln!("accept: {error}"),
        }
    }
}
