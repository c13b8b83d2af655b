"""Fine-tuning on conversations: what a run needs beside a model, and the run, which is one of `alm.training`."""
