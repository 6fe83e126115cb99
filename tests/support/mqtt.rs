//! Just enough of MQTT (3.1.1 and 5) to hear what a client acknowledged: PUBLISH in, PUBACK out.
//!
//! *Invariant:* an acknowledgement counts from the moment in which its last byte is handed to the kernel:
//! earlier than the broker can see it, never later.

use std::collections::HashMap;

const CONNECT: u8 = 1;
const PUBLISH: u8 = 3;
const PUBACK: u8 = 4;
/// In MQTT 5 a PUBACK with a reason from here on says that the message was refused.
const REFUSED: u8 = 0x80;
/// Protocol level of MQTT 5, whose packets carry properties.
const LEVEL_5: u8 = 5;

#[derive(Default)]
struct Connection {
    sent: Vec<u8>,
    received: Vec<u8>,
    level: u8,
    /// By packet id: the last payload that came with it.
    outstanding: HashMap<u16, Vec<u8>>,
}

/// All that was said over every connection.
#[derive(Default)]
pub struct Conversation {
    connections: HashMap<String, Connection>,
    acknowledged: Vec<Vec<u8>>,
}

impl Conversation {
    /// Payloads acknowledged so far, oldest first.
    pub fn acknowledged(&self) -> &[Vec<u8>] {
        &self.acknowledged
    }

    /// The client handed these bytes to the kernel.
    pub fn sent(&mut self, socket: &str, data: &[u8]) {
        let connection = self.connections.entry(socket.to_owned()).or_default();
        connection.sent.extend_from_slice(data);
        while let Some((kind, body, used)) = first_packet(&connection.sent) {
            match (kind >> 4, body) {
                (CONNECT, body) => connection.level = body.get(6).copied().unwrap_or(4),
                (PUBACK, &[high, low, ref rest @ ..]) => {
                    let id = u16::from_be_bytes([high, low]);
                    let payload = connection.outstanding.remove(&id);
                    if rest.first().is_none_or(|reason| *reason < REFUSED) {
                        self.acknowledged.extend(payload);
                    }
                }
                _ => {}
            }
            connection.sent.drain(..used);
        }
    }

    /// The kernel handed these bytes to the client.
    pub fn received(&mut self, socket: &str, data: &[u8]) {
        let connection = self.connections.entry(socket.to_owned()).or_default();
        connection.received.extend_from_slice(data);
        while let Some((kind, body, used)) = first_packet(&connection.received) {
            if kind >> 4 == PUBLISH
                && (kind >> 1) & 3 == 1
                && let Some((id, payload)) = publish(body, connection.level)
            {
                connection.outstanding.insert(id, payload.to_vec());
            }
            connection.received.drain(..used);
        }
    }
}

/// The first byte, the body and the whole length of the first packet, if it is all there.
fn first_packet(stream: &[u8]) -> Option<(u8, &[u8], usize)> {
    let (len, len_bytes) = variable_length(stream.get(1..)?)?;
    let start = 1 + len_bytes;
    let body = stream.get(start..start + len)?;
    Some((stream[0], body, start + len))
}

fn variable_length(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0;
    for (index, byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, index + 1));
        }
    }
    None
}

/// Packet id and payload of a PUBLISH at QoS 1.
fn publish(body: &[u8], level: u8) -> Option<(u16, &[u8])> {
    let topic = usize::from(u16::from_be_bytes([*body.first()?, *body.get(1)?]));
    let id = u16::from_be_bytes([*body.get(2 + topic)?, *body.get(3 + topic)?]);
    let mut payload = body.get(4 + topic..)?;
    if level >= LEVEL_5 {
        let (len, len_bytes) = variable_length(payload)?;
        payload = payload.get(len_bytes + len..)?;
    }
    Some((id, payload))
}

/// A PUBACK of MQTT 3.1.1.
pub fn puback_packet(id: u16) -> [u8; 4] {
    let [high, low] = id.to_be_bytes();
    [PUBACK << 4, 2, high, low]
}

/// Takes whole PUBLISH packets off the front of a stream: packet id and payload.
pub fn take_publishes(stream: &mut Vec<u8>) -> Vec<(u16, Vec<u8>)> {
    let mut taken = Vec::new();
    while let Some((_, body, used)) = first_packet(stream) {
        if let Some((id, payload)) = publish(body, 4) {
            taken.push((id, payload.to_vec()));
        }
        stream.drain(..used);
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::super::publish_packet;
    use super::*;

    #[test]
    fn an_acknowledgement_is_matched_to_what_it_acknowledges_across_torn_packets() {
        let mut conversation = Conversation::default();
        let long = vec![b'x'; 300];
        let packet = publish_packet("v1/laps", 7, &long);
        for piece in packet.chunks(11) {
            conversation.received("a", piece);
        }
        conversation.received("a", &publish_packet("v1/laps", 8, b"two"));
        let ack = puback_packet(8);
        conversation.sent("a", &ack[..3]);
        assert!(conversation.acknowledged().is_empty());
        conversation.sent("a", &ack[3..]);
        conversation.sent("b", &puback_packet(7));
        assert_eq!(conversation.acknowledged(), [b"two".to_vec()]);
        conversation.sent("a", &puback_packet(7));
        assert_eq!(conversation.acknowledged()[1], long);
    }

    #[test]
    fn properties_of_mqtt_5_are_skipped() {
        let mut conversation = Conversation::default();
        conversation.sent("a", &[0x10, 7, 0, 4, b'M', b'Q', b'T', b'T', 5]);
        // Topic "t", id 1, three bytes of properties, payload "p".
        conversation.received("a", &[0x32, 10, 0, 1, b't', 0, 1, 3, 1, 2, 3, b'p']);
        conversation.received("a", &[0x32, 10, 0, 1, b't', 0, 2, 3, 1, 2, 3, b'q']);
        conversation.sent("a", &[0x40, 3, 0, 2, 0x97]);
        conversation.sent("a", &[0x40, 3, 0, 1, 0x10]);
        assert_eq!(
            conversation.acknowledged(),
            [b"p".to_vec()],
            "q was refused"
        );
    }
}
