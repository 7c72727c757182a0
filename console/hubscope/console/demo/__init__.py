"""What `hubscope demo` is made of: where it works, what it starts, what it runs, how it says where it stands."""
