use super::*;
#[test]
#[ignore]
fn dump() {
    use std::io::Write;
    let args = std::env::var("SIM").unwrap_or_default();
    let mut o = Options {
        laps: Some(20),
        seed: 3,
        ..Options::new(&circuit::CIRCUITS[0])
    };
    for part in args.split_whitespace() {
        let (k, v) = part.split_once('=').unwrap();
        match k {
            "circuit" => o.circuit = Circuit::named(v).unwrap(),
            "laps" => o.laps = Some(v.parse().unwrap()),
            "seed" => o.seed = v.parse().unwrap(),
            "dirt" => o.dirt = v.parse().unwrap(),
            "minutes" => o.minutes = Some(v.parse().unwrap()),
            "rate" => o.frames = Some(FrameOptions::at(v.parse().unwrap())),
            "rain" => o.rain = Rain::ShowerAt(v.parse().unwrap()),
            "session" => {
                o.programme = match v {
                    "practice" => Programme::Only(SessionKind::Practice),
                    "qualifying" => Programme::Only(SessionKind::Qualifying),
                    "weekend" => Programme::Weekend,
                    _ => Programme::Only(SessionKind::Race),
                }
            }
            "script" => {
                o.incidents = Incidents::Script(
                    v.split(',')
                        .map(|x| {
                            let (l, w) = x.split_once(':').unwrap();
                            Scripted {
                                lap: l.parse().unwrap(),
                                what: match w {
                                    "sc" => Incident::SafetyCar,
                                    "vsc" => Incident::VirtualSafetyCar,
                                    "red" => Incident::Red,
                                    "pen" => Incident::Penalty(7, 5),
                                    _ => Incident::Breakdown(w.parse().unwrap()),
                                },
                            }
                        })
                        .collect(),
                )
            }
            _ => panic!(),
        }
    }
    let t = std::time::Instant::now();
    let mut out = std::io::BufWriter::new(std::fs::File::create("/tmp/sim.ndjson").unwrap());
    let mut n = 0;
    let (mut a, mut b) = (None, Time::default());
    let mut sim = Simulator::new(o).unwrap();
    while let Some(e) = sim.next() {
        n += 1;
        a.get_or_insert(e.t);
        b = e.t;
        if !e.topic.starts_with("trackside") {
            writeln!(
                out,
                "{{\"t\":\"{}\",\"topic\":\"{}\",\"payload\":{}}}",
                e.t,
                e.topic,
                std::str::from_utf8(&e.payload).unwrap()
            )
            .unwrap();
        }
    }
    let real = b.seconds_since(a.unwrap());
    println!(
        "{n} messages, {real} s in {:?}: {:.0}x",
        t.elapsed(),
        real / t.elapsed().as_secs_f64()
    );
    std::fs::write("/tmp/truth.json", serde_json::to_vec(sim.truths()).unwrap()).unwrap();
}
