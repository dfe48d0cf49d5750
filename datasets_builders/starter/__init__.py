"""What `trimpi init` writes: a project folder that runs as it is, to be made one's own."""
