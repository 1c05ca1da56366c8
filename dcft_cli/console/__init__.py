"""What a person sees. The only importer of rich: results on stdout, progress on stderr."""
