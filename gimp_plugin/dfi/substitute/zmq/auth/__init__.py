"""Of pyzmq's zmq.auth: reading certificates."""
