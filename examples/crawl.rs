//! cargo run --release --example crawl -- [--workers 8] [--pages 200] [--delay 5ms]
//!
//! Crawls a web site: fetches a page, then every page it links to that was not seen before, and so on until there are no more.
//! The site is served by the example itself, on a port of this machine, each page after `--delay`; some of its links are dead.
//!
//! So many workers fetch at once. The main goroutine alone knows what was seen and how much is outstanding, so nothing is locked. `jobs` is
//! an unbounded channel: if it could be full, the main goroutine would wait for workers that wait for it to take their results.

mod common;

use std::{
    collections::HashSet,
    io::{self, BufRead, BufReader, Read, Write},
    net::SocketAddr,
    time::{Duration, Instant},
};

use oxigo::{
    Receiver, Sender, go,
    net::{TcpListener, TcpStream},
    time, unbounded, unbuffered,
};

/// The site: page `n` links to the pages `2n + 1` and `2n + 2` and back to the one before it. Where there is no such page, the link is dead.
fn page(path: &str, pages: usize) -> Option<String> {
    let n = path.strip_prefix("/page/")?.parse::<usize>().ok().filter(|n| *n < pages)?;
    let mut text = format!("<h1>Page {n}</h1>\n");
    for next in [2 * n + 1, 2 * n + 2, n.saturating_sub(1)] {
        text += &if next < pages { format!("<a href=\"/page/{next}\">\n") } else { "<a href=\"/gone\">\n".to_owned() };
    }
    Some(text)
}

/// Answers one request.
fn answer(mut connection: &TcpStream, pages: usize, delay: Duration) -> io::Result<()> {
    let mut request = String::new();
    BufReader::new(connection).read_line(&mut request)?;
    time::sleep(delay);
    let path = request.split(' ').nth(1).unwrap_or_default();
    let reply = match page(path, pages) {
        Some(text) => format!("HTTP/1.0 200 OK\r\n\r\n{text}"),
        None => "HTTP/1.0 404 Not Found\r\n\r\n".to_owned(),
    };
    connection.write_all(reply.as_bytes())
}

fn serve(listener: &TcpListener, pages: usize, delay: Duration) {
    for connection in listener.incoming().flatten() {
        go(move || {
            // Whoever does not wait for the answer is not an error of ours.
            let _ = answer(&connection, pages, delay);
        });
    }
}

/// Fetches a page; the links in it, or none if there is no such page.
fn fetch(site: SocketAddr, path: &str) -> io::Result<Option<Vec<String>>> {
    let mut connection = TcpStream::connect(site)?;
    connection.write_all(format!("GET {path} HTTP/1.0\r\n").as_bytes())?;
    let mut reply = String::new();
    connection.read_to_string(&mut reply)?;
    if !reply.starts_with("HTTP/1.0 200 ") {
        return Ok(None);
    }
    let links = reply.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next());
    Ok(Some(links.map(str::to_owned).collect()))
}

/// What a worker found out about one page.
struct Found {
    path: String,
    links: io::Result<Option<Vec<String>>>,
}

fn work(site: SocketAddr, jobs: Receiver<String>, found: Sender<Found>) {
    for path in jobs {
        let links = fetch(site, &path);
        if found.send(Found { path, links }).is_err() {
            return;
        }
    }
}

#[oxigo::main]
fn main() -> io::Result<()> {
    let (mut workers, mut pages, mut delay) = (8, 200, Duration::from_millis(5));
    common::options("crawl [--workers 8] [--pages 200] [--delay 5ms]", |name, value| {
        let number = || match value.parse::<usize>() {
            Ok(n) if n > 0 => Ok(n),
            _ => Err(format!("{value} is not a positive number")),
        };
        match name {
            "--workers" => workers = number()?,
            "--pages" => pages = number()?,
            "--delay" => delay = common::duration(value)?,
            _ => return Err(format!("unknown option {name}")),
        }
        Ok(())
    });

    let listener = TcpListener::bind("127.0.0.1:0")?;
    let site = listener.local_addr()?;
    go(move || serve(&listener, pages, delay));

    let start = Instant::now();
    let (jobs, queue) = unbounded();
    let (results, found) = unbuffered();
    for _ in 0..workers {
        let (queue, results) = (queue.clone(), results.clone());
        go(move || work(site, queue, results));
    }

    let first = "/page/0".to_owned();
    let mut seen = HashSet::from([first.clone()]);
    jobs.send(first).expect("the workers wait for it");
    let (mut outstanding, mut good, mut dead) = (1, 0, 0);
    while outstanding > 0 {
        let Found { path, links } = found.recv().expect("we hold a sender ourselves");
        outstanding -= 1;
        match links {
            Ok(Some(links)) => {
                good += 1;
                for link in links {
                    if seen.insert(link.clone()) {
                        jobs.send(link).expect("the workers wait for it");
                        outstanding += 1;
                    }
                }
            }
            Ok(None) => {
                dead += 1;
                println!("{path}: no such page");
            }
            Err(error) => println!("{path}: {error}"),
        }
    }
    println!("{good} pages, {dead} dead links, {workers} workers, {:.0?}", start.elapsed());
    Ok(())
}
