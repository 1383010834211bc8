"""The socket's side: a server with a fair queue, and a worker process for each device."""
