//! containerd behind the `Runtime` port.
