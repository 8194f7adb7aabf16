"""Training in one call: the head and what happened."""

from hf_elhsr.training import RewardHeadTrainer


def train_head(rollouts, args=None, checkpoint=None):
    trainer = RewardHeadTrainer(rollouts, args, checkpoint)
    report = trainer.train()
    return trainer.head, report
