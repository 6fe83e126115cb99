//! MQTT, 3.1.1 and 5: a [`source`] that acknowledges what is durable, and an [`outbox`] that sends
//! in order until everything is acknowledged.
//!
//! Both sit on [`connection`]: one rumqttc client and event loop per connection, made anew for each
//! one. Nothing of a broken connection (packet ids, buffered events, a collision that never clears)
//! can then leak into the next; the broker's persistent session and our own queues carry what must
//! survive.
//!
//! **Invariant:** a packet id is an answer only on the connection that it came from; nothing is
//! acknowledged across connections.

pub mod broker;
pub mod connection;
pub mod outbox;
pub mod source;
#[cfg(test)]
pub(crate) mod tests;

pub use broker::{Broker, Version};
pub use source::{Options, run};
