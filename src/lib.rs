//! trackside: telemetry, timing and predictions at the side of a Formula 1 track.
//!
//! One lean daemon for an NVIDIA Jetson in the garage. It takes telemetry and timing in over MQTT and
//! Zenoh, keeps every accepted record in a durable local journal, knows at every moment what is true on
//! track, predicts the next lap, the finishing order and the next stop, and publishes the answers to
//! MQTT and Zenoh subscribers and to a live page. With no network it runs all the same.
//!
//! # The picture
//!
//! ```text
//!  MQTT  (OpenF1 JSON, CBOR) ─┐
//!  Zenoh (CBOR frames)       ─┤   ┌────────┐   ┌─────────┐   ┌──────┐   ┌─────────┐   ┌─────────┐▶ MQTT
//!  OpenF1 live, recordings,  ─┼──▶│ ingest │──▶│ journal │──▶│ race │──▶│ predict │──▶│ publish │▶ Zenoh
//!  simulator                 ─┘   └────────┘   └─────────┘   └──────┘   └─────────┘   └─────────┘
//!                                  decode,      segments,     pure       pure, graded      ▲
//!                                  dedupe       sync, then    fold       when the truth    │
//!                                     ▲         ack │  ▲                 arrives │         │
//!                                     └─────────────┘  │                         ▼         │
//!                                                      │          journal of predictions ──┤
//!                                                      │                                   ▼
//!                                                      └─── restart: fold it again     api: REST,
//!                                                                                      WebSocket, page
//! ```
//!
//! Data moves one way. Five rules hold everywhere:
//!
//! 1. **Acknowledged means durable.** A QoS 1 message is acknowledged to its broker only after the batch
//!    that holds it is on disk and would survive a power cut. Group commit makes that cheap.
//! 2. **State is a pure function of the journal.** `race` and `predict` read no clock, file or socket.
//!    Restart, replay and tests fold the same records through the same code: the same bytes in, the same
//!    predictions out.
//! 3. **The journal is the queue.** Publishers, WebSocket catch-up and history read it by sequence number.
//!    There is no second buffer to lose things in.
//! 4. **Everything has a bound**, with a name: queues, caches, retries, segments, messages. Overload sheds
//!    by a written rule (never what was acknowledged) and is counted.
//! 5. **What comes from outside is a value, not a surprise.** A malformed message, a damaged segment, a full
//!    disk or an absent sensor is told apart, counted and named; it never ends the process.
//!
//! # The rooms
//!
//! Rooms further up know nothing of rooms further down.
//!
//! ## [`record`]: what the feeds say
//!
//! The OpenF1 v1 vocabulary as types, the native high-rate frame, predictions; their JSON and CBOR forms;
//! the keys that make two messages versions of one document; the bounds of the possible.
//!
//! *Invariant:* no I/O, no clock. Bytes from outside become a record or a reason for their rejection; there
//! is no third way.
//!
//! ## `journal`: what is kept
//!
//! The durable log: append-only segments of checksummed column blocks for what streams, sled for what is
//! looked up. Append, commit, read by sequence or by session, kind, car and time; retain, verify, repair.
//! There are two in a data directory: `records`, synced at each commit, and `predictions`, which can be made
//! again and is not.
//!
//! *Invariant:* nothing leaves it unchecked, a commit that has returned survives a power cut, and everything
//! in sled can be rebuilt from the segments. No network.
//!
//! ## `race`: what is true on track
//!
//! Sessions, cars, laps, stints, gaps, pit visits and track status, folded from records into fixed-capacity
//! collections.
//!
//! *Invariant:* pure. The same records in the same order give the same state, bit for bit; that is why a
//! restart may simply fold the journal again.
//!
//! ## [`compute`]: the heavy arithmetic
//!
//! Traces, features, fits, statistics and simulated races over plain arrays: one trait, two implementors, the
//! CPU and the CUDA kernels of `kernels/`, which give the same bits.
//!
//! *Invariant:* it knows arrays, not racing. A GPU is never needed for an answer, and its failure never loses
//! one. Only here may `unsafe` stand, with its reason beside it.
//!
//! ## `strategy`: what a stop would change
//!
//! The race model, fitted on past seasons and taught by the laps of the day; the Monte Carlo planner, undercuts,
//! rejoins, pit windows.
//!
//! *Invariant:* pure, and every seed is given: the same answers bit by bit, whatever the number of threads.
//!
//! ## `inference`: trained networks
//!
//! From an ONNX file to numbers: the manifest of models, their digests, shapes and recorded answers, and the
//! engine on the CPU.
//!
//! *Invariant:* it knows tensors, not racing; a model that is not what its manifest says never answers.
//!
//! ## `predict`: what will be
//!
//! The next lap, the finishing order, the next stop: by trained models where there are any, else by honest
//! statistics, the floor; and the grades of past predictions, given when the truth arrives.
//!
//! *Invariant:* pure, apart from calling engines; the floor's arithmetic is exact: the same predictions, byte for
//! byte, on every machine.
//!
//! ## `dataset`: published seasons
//!
//! Tables of laps, results, stints and track status, brought into one shape a race and walked through as it
//! happened; arrays for training. What `evaluate` and the training read; the daemon does without.
//!
//! *Invariant:* it only reads, and a walk shows at each step only what was known by then.
//!
//! ## [`insight`]: what is found out beside the pipeline
//!
//! Channels against their limits at every tick, laps taken apart and compared as they close, stints fitted with each
//! lap, simulated races for the cars that matter: by `compute`, on threads of its own.
//!
//! *Invariant:* nothing waits for it, and nothing that is folded, predicted or journalled depends on it.
//!
//! ## [`analytics`]: what the laps say about the drivers
//!
//! Pace free of fuel and tyres, consistency, tyre management, sectors, teammates: of a race or of a season.
//!
//! *Invariant:* pure; what was not measured is `None`, never 0.
//!
//! ## `ingest`: how records come in
//!
//! MQTT, Zenoh, OpenF1's live feed and recordings; decoding, dedupe over redelivery and restart, group
//! commit, back-pressure.
//!
//! *Invariant:* it never touches race state, and nothing is acknowledged to its source before the journal
//! says that it is on disk.
//!
//! ## `publish`: how answers go out
//!
//! Predictions, state, alerts and health to MQTT and Zenoh. A publisher is a cursor into the journal of
//! predictions.
//!
//! *Invariant:* a slow or absent subscriber slows only its own publisher.
//!
//! ## `simulator`: a race weekend of our own
//!
//! Invented circuits, a race that happens rather than a script, and the messages that the real feed would
//! have sent about it, dirt included; high-rate frames up to 1 kHz.
//!
//! *Invariant:* no clock, file or socket: the same options give the same bytes.
//!
//! ## `device`: the machine underneath
//!
//! Readings of a Jetson and of its host; word to systemd; the watchdog that is fed only while the pipeline
//! moves.
//!
//! *Invariant:* absent hardware is a value, not an error.
//!
//! ## `api`: what one can ask
//!
//! REST, WebSocket with catch-up, health, Prometheus metrics, and the pit-wall page.
//!
//! *Invariant:* it holds no state of its own and nobody waits for it.
//!
//! ## `engines`: the folder of models
//!
//! Where it lies, loading what is in it, and a new version while a race runs.
//!
//! *Invariant:* no model is no error, and a broken model never replaces a working one.
//!
//! ## `live` and `daemon`: the edge, wired up
//!
//! `live` runs the fold and hands out snapshots of it; `daemon` starts every room and connects them, top to
//! bottom as in the picture.
//!
//! *Invariant:* no logic.
//!
//! ## `config`, `observability`, `cli`
//!
//! One TOML file, parsed once into typed values; logs and metrics; one file per subcommand.
//!
//! *Invariant:* a configuration that exists is valid; only `cli` prints.

pub mod analytics;
pub mod api;
pub mod cli;
pub mod compute;
pub mod config;
pub mod daemon;
pub mod dataset;
pub mod device;
pub mod engines;
pub mod inference;
pub mod ingest;
pub mod insight;
pub mod journal;
pub mod live;
pub mod observability;
pub mod predict;
pub mod publish;
pub mod race;
pub mod record;
pub mod simulator;
pub mod strategy;
