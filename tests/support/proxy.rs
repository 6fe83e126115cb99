//! A wire between the daemon and its broker that listens: it knows which messages the daemon has
//! acknowledged.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::mqtt::Conversation;
use super::wait_for;

const READ_BYTES: usize = 64 * 1024;
const CONNECTS_WITHIN: Duration = Duration::from_secs(5);
/// How long what was on the wire may take to arrive after an end has gone.
const DRAINS_WITHIN: Duration = Duration::from_secs(180);

#[derive(Default)]
struct Wire {
    conversation: Conversation,
    /// Threads that still carry bytes.
    carrying: usize,
}

/// Lives as long as the test program; carries any number of connections, one after the other or at once.
pub struct Proxy {
    address: SocketAddr,
    wire: Arc<Mutex<Wire>>,
}

impl Proxy {
    /// A wire to the broker at `port`.
    pub fn to(port: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        let wire = Arc::<Mutex<Wire>>::default();
        thread::spawn({
            let wire = wire.clone();
            move || {
                for (number, client) in listener.incoming().flatten().enumerate() {
                    // Where the broker is away the client sees a connection that ends at once.
                    let to = SocketAddr::from(([127, 0, 0, 1], port));
                    if let Ok(broker) = TcpStream::connect_timeout(&to, CONNECTS_WITHIN) {
                        join(&wire, &number.to_string(), client, broker);
                    }
                }
            }
        });
        Proxy { address, wire }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// How many acknowledgements of the daemon have passed so far.
    pub fn heard(&self) -> usize {
        let wire = self.wire.lock().expect("no panic");
        wire.conversation.acknowledged().len()
    }

    /// The payloads that the daemon has acknowledged, oldest first, once nothing is on the wire any more:
    /// to be asked after one end has gone.
    pub fn acknowledged(&self) -> Vec<Vec<u8>> {
        wait_for("the wire to be empty", DRAINS_WITHIN, || {
            (self.wire.lock().expect("no panic").carrying == 0).then_some(())
        });
        let wire = self.wire.lock().expect("no panic");
        wire.conversation.acknowledged().to_vec()
    }
}

fn join(wire: &Arc<Mutex<Wire>>, name: &str, client: TcpStream, broker: TcpStream) {
    let (Ok(client_in), Ok(broker_in)) = (client.try_clone(), broker.try_clone()) else {
        return;
    };
    wire.lock().expect("no panic").carrying += 2;
    let name = name.to_owned();
    thread::spawn({
        let (wire, name) = (wire.clone(), name.clone());
        move || carry(&wire, client_in, broker, |c, data| c.sent(&name, data))
    });
    let wire = wire.clone();
    thread::spawn(move || carry(&wire, broker_in, client, |c, data| c.received(&name, data)));
}

/// Listens, then passes on, until either end has gone; then ends both.
fn carry(
    wire: &Mutex<Wire>,
    mut from: TcpStream,
    mut to: TcpStream,
    hear: impl Fn(&mut Conversation, &[u8]),
) {
    let mut buffer = vec![0; READ_BYTES];
    let mut reaches = true;
    while let Ok(read) = from.read(&mut buffer)
        && read > 0
    {
        hear(
            &mut wire.lock().expect("no panic").conversation,
            &buffer[..read],
        );
        // What one end said counts, whether or not the other is still there to hear it.
        reaches = reaches && to.write_all(&buffer[..read]).is_ok();
    }
    let _ = to.shutdown(Shutdown::Both);
    wire.lock().expect("no panic").carrying -= 1;
}
