"""Parts of `bench.train_step`: the steps themselves, memory, time to quality, time by op."""
