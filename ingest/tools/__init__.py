"""What checks, repairs, converts, describes and draws datasets."""
