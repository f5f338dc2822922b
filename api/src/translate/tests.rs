//! Objects to launch files.
