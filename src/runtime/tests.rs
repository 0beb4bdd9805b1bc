//! Cores with real rings, files and sockets.
