//! `meter serve PORT` in a guest, and on its host `meter udp|in|out ADDRESS PORT COUNT`: what the path between them costs.
//!
//! `udp` prints nanoseconds of a 64-byte round trip: the median and the 90th percentile of COUNT. `in` and `out` print
//! nanoseconds for COUNT bytes of TCP to and from the guest. It is one static file, so that it runs in a guest of busybox alone.

fn main() -> meter::Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    meter::run(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}
