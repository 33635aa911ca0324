"""The report: runs compared on one page, from the files that they leave."""
