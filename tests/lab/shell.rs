//! `lab`: a shell in the lab's host, with the programs under test; `exit` ends it.

use tests::dist_file;

fn main() {
    tests::lab::shell(&["tapvisor", "tapvisor-bridge", "tapvisor-cni", "tapvisor-launcher", "vmm-boot"].map(dist_file));
}
