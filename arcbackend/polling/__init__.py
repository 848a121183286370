"""The poller: tracked jobs, fed with what batched polls observe, told as events."""
