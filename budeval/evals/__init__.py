"""The evaluation: services, workflows, activities, monitoring, notifications, results."""
