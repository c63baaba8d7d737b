podium init .
make new COMPETITION=task DATA=../images
make train RUN=lite0.s1 SET="training_pixels=$1 epochs=$2 $3"
make ensemble
