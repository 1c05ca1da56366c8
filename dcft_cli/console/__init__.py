"""Terminal output, the only importer of rich: results on stdout, progress on stderr."""
