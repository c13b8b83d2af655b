"""What alm promises, proved on the machine at hand."""
